// What pgjdbc does with a server, printed so that two servers can be compared.

import java.io.StringReader;
import java.io.StringWriter;
import java.sql.Array;
import java.sql.BatchUpdateException;
import java.sql.CallableStatement;
import java.sql.Connection;
import java.sql.DatabaseMetaData;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.ResultSetMetaData;
import java.sql.SQLException;
import java.sql.Savepoint;
import java.sql.Statement;
import java.sql.Types;
import java.util.Arrays;
import java.util.Properties;
import org.postgresql.PGConnection;
import org.postgresql.copy.CopyManager;
import org.postgresql.largeobject.LargeObject;
import org.postgresql.largeobject.LargeObjectManager;
import org.postgresql.util.PSQLException;

public class Jdbc {
    interface Action {
        void run() throws Exception;
    }

    static void show(String title, Object value) {
        System.out.println(title + ": " + value);
    }

    static void error(String title, Action action) throws Exception {
        try {
            action.run();
            show(title, "no error");
        } catch (PSQLException raised) {
            var server = raised.getServerErrorMessage();
            show(title, raised.getSQLState() + " " + (server == null ? raised.getMessage()
                : server.getMessage() + " " + server.getDetail() + " " + server.getPosition() + " " + server.getConstraint()));
        }
    }

    static Connection connect(Properties more) throws SQLException {
        var url = "jdbc:postgresql://" + System.getenv("PGHOST") + ":" + System.getenv("PGPORT") + "/" + System.getenv("PGDATABASE");
        var properties = new Properties();
        properties.putAll(more);
        properties.setProperty("user", System.getenv("PGUSER"));
        properties.setProperty("password", System.getenv("PGPASSWORD"));
        var ca = System.getenv("PGSSLROOTCERT");
        properties.setProperty("sslmode", ca == null ? "disable" : "verify-full");
        if (ca != null) {
            properties.setProperty("sslrootcert", ca);
        }
        return DriverManager.getConnection(url, properties);
    }

    static long sum(ResultSet rows) throws SQLException {
        long sum = 0;
        while (rows.next()) {
            sum += rows.getLong(1);
        }
        return sum;
    }

    static void statements(Connection connection) throws Exception {
        try (Statement statement = connection.createStatement()) {
            statement.execute("DROP TABLE IF EXISTS smoke");
            statement.execute("CREATE TABLE smoke (id int PRIMARY KEY, body text, cost numeric(8,2), tags text[], at timestamptz)");
            boolean first = statement.execute("SELECT 1; UPDATE smoke SET id = 1; SELECT 'three'");
            show("several", first + " " + statement.getMoreResults() + " " + statement.getUpdateCount() + " " + statement.getMoreResults());
        }
        try (PreparedStatement insert = connection.prepareStatement("INSERT INTO smoke VALUES (?, ?, ?, ?, ?)", Statement.RETURN_GENERATED_KEYS)) {
            for (int i = 0; i < 1000; i++) {
                Array tags = connection.createArrayOf("text", new String[] {"t" + i, "ü,\""});
                insert.setInt(1, i);
                insert.setString(2, "row " + i);
                insert.setBigDecimal(3, new java.math.BigDecimal(i).movePointLeft(1));
                insert.setArray(4, tags);
                insert.setTimestamp(5, java.sql.Timestamp.from(java.time.Instant.ofEpochSecond(i)));
                insert.addBatch();
            }
            show("batch", Arrays.stream(insert.executeBatch()).sum());
            ResultSet keys = insert.getGeneratedKeys();
            show("keys", sum(keys));
        }
        try (PreparedStatement select = connection.prepareStatement("SELECT id, body, cost, tags, at FROM smoke WHERE id = ?")) {
            for (int i = 0; i < 12; i++) {  // a named statement from the fifth time on, binary results later
                select.setInt(1, i);
                ResultSet row = select.executeQuery();
                row.next();
                show("row", row.getInt(1) + row.getString(2) + row.getBigDecimal(3) + Arrays.toString((Object[]) row.getArray(4).getArray()) + row.getTimestamp(5).getTime());
            }
            ResultSetMetaData meta = select.getMetaData();
            show("meta", meta.getColumnCount() + meta.getColumnTypeName(3) + meta.getPrecision(3) + meta.getTableName(1));
            show("parameters", select.getParameterMetaData().getParameterTypeName(1));
        }
        error("double", () -> connection.createStatement().execute("INSERT INTO smoke (id) VALUES (1)"));
        error("syntax", () -> connection.createStatement().execute("SELEC 1"));
        error("zero", () -> connection.createStatement().executeQuery("SELECT 1/0"));
        error("nothing", () -> connection.prepareStatement("SELECT nothing FROM smoke").executeQuery());
        try (PreparedStatement insert = connection.prepareStatement("INSERT INTO smoke (id) VALUES (?)")) {
            for (int id : new int[] {5001, 1, 5002}) {
                insert.setInt(1, id);
                insert.addBatch();
            }
            insert.executeBatch();
        } catch (BatchUpdateException raised) {
            show("broken batch", Arrays.toString(raised.getUpdateCounts()) + raised.getSQLState());
        }
    }

    static void transactions(Connection connection, String mode) throws Exception {
        connection.setAutoCommit(false);
        try (Statement statement = connection.createStatement()) {
            statement.setFetchSize(64);
            show("portal", sum(statement.executeQuery("SELECT id FROM smoke ORDER BY id")));
            Savepoint savepoint = connection.setSavepoint("here");
            error("in transaction", () -> statement.execute("SELECT 1/0"));
            error("aborted", () -> statement.execute("SELECT 1"));
            connection.rollback(savepoint);
            statement.execute("INSERT INTO smoke (id) VALUES (6000)");
            connection.commit();
            statement.execute("DELETE FROM smoke WHERE id = 6000");
            connection.rollback();
        }
        connection.setAutoCommit(true);
        try (Statement statement = connection.createStatement(ResultSet.TYPE_SCROLL_INSENSITIVE, ResultSet.CONCUR_UPDATABLE)) {
            ResultSet rows = statement.executeQuery("SELECT * FROM smoke WHERE id = 6000");
            rows.absolute(1);
            rows.updateString("body", "updated");
            rows.updateRow();
        }
        if (!mode.equals("simple")) {
            CallableStatement call = connection.prepareCall("{? = call upper(?)}");
            call.registerOutParameter(1, Types.VARCHAR);
            call.setString(2, "loud");
            call.execute();
            show("call", call.getString(1));
        }
        connection.setTransactionIsolation(Connection.TRANSACTION_SERIALIZABLE);
        connection.setReadOnly(true);
        error("read only", () -> connection.createStatement().execute("DELETE FROM smoke"));
        connection.setReadOnly(false);
    }

    static void others(Connection connection) throws Exception {
        PGConnection raw = connection.unwrap(PGConnection.class);
        CopyManager copies = raw.getCopyAPI();
        var lines = new StringBuilder();
        for (int i = 10_000; i < 14_000; i++) {
            lines.append(i).append("\tcopied\n");
        }
        show("copied", copies.copyIn("COPY smoke (id, body) FROM STDIN", new StringReader(lines.toString())));
        var out = new StringWriter();
        show("out", copies.copyOut("COPY (SELECT id FROM smoke ORDER BY id) TO STDOUT", out) + " " + out.toString().length());
        error("broken copy", () -> copies.copyIn("COPY smoke (id, body) FROM STDIN", new StringReader("x\ty\n")));
        try (Statement statement = connection.createStatement()) {
            statement.execute("LISTEN bell");
            statement.execute("NOTIFY bell, 'ding'");
            for (var heard : raw.getNotifications(2000)) {
                show("heard", heard.getName() + heard.getParameter());
            }
            statement.execute("DO $$ BEGIN RAISE WARNING 'careful'; END $$");
            show("warning", statement.getWarnings().getMessage());
            statement.setQueryTimeout(1);
            error("timeout", () -> statement.execute("SELECT pg_sleep(30)"));
            statement.setQueryTimeout(0);
            ResultSet one = statement.executeQuery("SELECT length(repeat('x', 8000000))");
            one.next();
            show("alive", one.getInt(1));
        }
        connection.setAutoCommit(false);
        LargeObjectManager objects = raw.getLargeObjectAPI();  // by FunctionCall messages
        long oid = objects.createLO(LargeObjectManager.READWRITE);
        LargeObject object = objects.open(oid, LargeObjectManager.READWRITE);
        object.write("some bytes".getBytes());
        object.seek(5);
        show("large object", new String(object.read(5)));
        object.close();
        objects.delete(oid);
        connection.commit();
        connection.setAutoCommit(true);
        DatabaseMetaData meta = connection.getMetaData();
        show("product", meta.getDatabaseProductName() + meta.getDatabaseMajorVersion());
        ResultSet columns = meta.getColumns(null, null, "smoke", null);
        while (columns.next()) {
            show("column", columns.getString("COLUMN_NAME") + columns.getString("TYPE_NAME"));
        }
        ResultSet keys = meta.getPrimaryKeys(null, null, "smoke");
        keys.next();
        show("key", keys.getString("COLUMN_NAME"));
        show("valid", connection.isValid(5));
    }

    public static void main(String[] arguments) throws Exception {
        for (String mode : new String[] {"extended", "simple", "extendedForPrepared", "extendedCacheEverything"}) {
            var properties = new Properties();
            properties.setProperty("preferQueryMode", mode);
            properties.setProperty("ApplicationName", "jdbc smoke");
            properties.setProperty("options", "-c geqo=off -c app.tenant=five");
            show("mode", mode);
            try (Connection connection = connect(properties)) {
                ResultSet row = connection.createStatement().executeQuery("SELECT current_setting('geqo') || current_setting('app.tenant') || current_setting('application_name')");
                row.next();
                show("settings", row.getString(1));
                statements(connection);
                transactions(connection, mode);
                others(connection);
                connection.createStatement().execute("DROP TABLE smoke");
            }
        }
    }
}
