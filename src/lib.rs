//! Waybill.
