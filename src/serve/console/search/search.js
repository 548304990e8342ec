// Saves clicks in Forensic Search; every page works without it.
"use strict";

// A day that is written is meant, and so is a span that is chosen.
const range = document.getElementById("range");
const days = ["from", "to"].map((id) => document.getElementById(id)).filter(Boolean);
if (range) {
  for (const day of days) {
    day.addEventListener("input", () => { range.value = "custom"; });
  }
  range.addEventListener("change", () => {
    if (range.value !== "custom") {
      for (const day of days) { day.value = ""; }
    }
  });
}

// What a field offers to copy.
for (const button of document.querySelectorAll("button[data-copies]")) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    const text = document.getElementById(button.dataset.copies).textContent;
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Select it to copy";
    }
  });
}
