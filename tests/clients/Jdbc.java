import java.sql.*;
import java.util.*;

/** What a JDBC tool does: reads the metadata, then asks with parameters, as rows come. */
public class Jdbc {
    public static void main(String[] arguments) throws Exception {
        Properties properties = new Properties();
        properties.setProperty("user", arguments[1]);
        if (arguments.length > 2) properties.setProperty("password", arguments[2]);
        if (arguments.length > 3) {
            properties.setProperty("ssl", "true");
            properties.setProperty("sslmode", "verify-full");
            properties.setProperty("sslrootcert", arguments[3]);
        }
        try (Connection connection = DriverManager.getConnection(arguments[0], properties)) {
            DatabaseMetaData metadata = connection.getMetaData();
            check(metadata.getDatabaseProductName().equals("PostgreSQL"), "product");
            Set<String> tables = new TreeSet<>();
            try (ResultSet rows = metadata.getTables(null, "public", "%", new String[] {"TABLE", "VIEW"})) {
                while (rows.next()) tables.add(rows.getString("TABLE_NAME") + " " + rows.getString("TABLE_TYPE"));
            }
            check(tables.contains("file_events TABLE") && tables.contains("events VIEW"), tables.toString());
            Map<String, String> columns = new TreeMap<>();
            try (ResultSet rows = metadata.getColumns(null, "public", "file_events", "%")) {
                while (rows.next()) columns.put(rows.getString("COLUMN_NAME"), rows.getString("REMARKS"));
            }
            check(columns.size() > 30 && columns.get("sha256").startsWith("SHA-256 of the file"), columns.toString());
            try (ResultSet rows = metadata.getPrimaryKeys(null, "public", "file_events")) {
                check(!rows.next(), "no keys");
            }
            connection.setAutoCommit(false);
            String query = "SELECT event_id, observed_at, file_size_bytes, recipients FROM file_events WHERE file_size_bytes >= ? AND sender <> ?";
            int count = 0;
            try (PreparedStatement statement = connection.prepareStatement(query)) {
                statement.setLong(1, 1);
                statement.setString(2, "nobody@example.org' OR '1'='1");
                // Rows in portions, by a portal.
                statement.setFetchSize(7);
                try (ResultSet rows = statement.executeQuery()) {
                    while (rows.next()) {
                        check(rows.getLong("file_size_bytes") >= 1, "size");
                        check(rows.getTimestamp("observed_at") != null, "time");
                        check(((String[]) rows.getArray("recipients").getArray()).length >= 0, "list");
                        count++;
                    }
                }
            }
            connection.commit();
            try (Statement statement = connection.createStatement()) {
                statement.execute("DROP TABLE file_events");
                check(false, "dropped");
            } catch (SQLException error) {
                check(error.getSQLState().equals("42501"), error.getSQLState() + " " + error.getMessage());
            }
            connection.rollback();
            System.out.println("rows " + count);
        }
    }

    static void check(boolean isTrue, String what) {
        if (!isTrue) throw new AssertionError(what);
    }
}
