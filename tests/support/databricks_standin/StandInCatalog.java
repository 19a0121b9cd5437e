import java.util.ArrayList;
import java.util.Arrays;
import java.util.EnumSet;
import java.util.HashMap;
import java.util.HashSet;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import org.apache.spark.sql.catalyst.InternalRow;
import org.apache.spark.sql.catalyst.analysis.*;
import org.apache.spark.sql.catalyst.expressions.Cast;
import org.apache.spark.sql.catalyst.expressions.EvalMode;
import org.apache.spark.sql.catalyst.expressions.GenericInternalRow;
import org.apache.spark.sql.catalyst.expressions.Literal;
import org.apache.spark.sql.connector.catalog.*;
import org.apache.spark.sql.connector.catalog.constraints.Constraint;
import org.apache.spark.sql.connector.expressions.Expression;
import org.apache.spark.sql.connector.expressions.NamedReference;
import org.apache.spark.sql.connector.expressions.Transform;
import org.apache.spark.sql.connector.expressions.filter.Predicate;
import org.apache.spark.sql.connector.read.*;
import org.apache.spark.sql.connector.write.*;
import org.apache.spark.sql.types.StructField;
import org.apache.spark.sql.types.StructType;
import org.apache.spark.sql.util.CaseInsensitiveStringMap;

/**
 * A catalog of three levels in memory, which stands in for Unity Catalog and Delta.
 *
 * <p>What it shares with them: a statement that writes is seen as a whole or not at all, CREATE OR REPLACE TABLE puts the
 * new table in the old one's place in one step, and rows can be merged, updated and deleted. It keeps no versions and no
 * grants. A table remembers in its property {@code standin.made} by which statement it came to be, `create` or
 * `replace`, so that a test can tell a replaced table from one that was dropped and created.
 */
public class StandInCatalog implements RelationCatalog, StagingTableCatalog, SupportsNamespaces {
  private static final Map<String, Map<String, Map<String, String>>> NAMESPACES = new ConcurrentHashMap<>();
  private static final Map<String, Map<String, Relation>> RELATIONS = new ConcurrentHashMap<>();
  private String catalog;

  /** Schema, name, kind, provider and comment of all relations of a catalog; for information_schema. */
  public static String[][] relations(String catalog) {
    List<String[]> found = new ArrayList<>();
    for (Map.Entry<String, Relation> each : RELATIONS.getOrDefault(catalog, Map.of()).entrySet()) {
      String[] path = each.getKey().split("\\.", 2);
      Map<String, String> properties = each.getValue().properties();
      String kind = each.getValue() instanceof View ? "VIEW" : "MANAGED";
      String provider = properties.getOrDefault("provider", "delta");
      found.add(new String[] {path[0], path[1], kind, provider, properties.getOrDefault("comment", "")});
    }
    return found.toArray(new String[0][]);
  }

  /** The query of a view; null for anything else. */
  public static String viewText(String catalog, String schema, String name) {
    Relation found = RELATIONS.getOrDefault(catalog, Map.of()).get(schema + "." + name);
    return found instanceof View ? ((View) found).queryText() : null;
  }

  /** The columns of the clustering key of a table, in order. */
  public static String clusteredBy(String catalog, String schema, String name) {
    Relation found = RELATIONS.getOrDefault(catalog, Map.of()).get(schema + "." + name);
    return found instanceof MemoryTable ? Arrays.toString(((MemoryTable) found).transforms) : "";
  }

  private Map<String, Map<String, String>> namespaces() {
    return NAMESPACES.computeIfAbsent(
        catalog, key -> new ConcurrentHashMap<>(Map.of("default", Map.of(), "information_schema", Map.of())));
  }

  private Map<String, Relation> relations() {
    return RELATIONS.computeIfAbsent(catalog, key -> new ConcurrentHashMap<>());
  }

  private static String key(Identifier name) {
    return lower(name.namespace()) + "." + name.name().toLowerCase();
  }

  private static String lower(String[] namespace) {
    return String.join(".", namespace).toLowerCase();
  }

  @Override public void initialize(String name, CaseInsensitiveStringMap options) { catalog = name; namespaces(); }
  @Override public String name() { return catalog; }
  @Override public String[] defaultNamespace() { return new String[] {"default"}; }

  @Override public Set<TableCatalogCapability> capabilities() {
    return new HashSet<>(Arrays.asList(
        TableCatalogCapability.SUPPORT_COLUMN_DEFAULT_VALUE, TableCatalogCapability.SUPPORT_TABLE_CONSTRAINT));
  }

  // ---- schemas

  @Override public String[][] listNamespaces() {
    return namespaces().keySet().stream().sorted().map(key -> new String[] {key}).toArray(String[][]::new);
  }

  @Override public String[][] listNamespaces(String[] namespace) throws NoSuchNamespaceException {
    if (namespace.length == 0) return listNamespaces();
    loadNamespaceMetadata(namespace);
    return new String[0][];
  }

  @Override public Map<String, String> loadNamespaceMetadata(String[] namespace) throws NoSuchNamespaceException {
    Map<String, String> found = namespaces().get(lower(namespace));
    if (found == null) throw new NoSuchNamespaceException(namespace);
    return found;
  }

  @Override public void createNamespace(String[] namespace, Map<String, String> properties)
      throws NamespaceAlreadyExistsException {
    if (namespaces().putIfAbsent(lower(namespace), new HashMap<>(properties)) != null)
      throw new NamespaceAlreadyExistsException(namespace);
  }

  @Override public void alterNamespace(String[] namespace, NamespaceChange... changes) throws NoSuchNamespaceException {
    loadNamespaceMetadata(namespace);
  }

  @Override public boolean dropNamespace(String[] namespace, boolean cascade)
      throws NoSuchNamespaceException, NonEmptyNamespaceException {
    loadNamespaceMetadata(namespace);
    String prefix = lower(namespace) + ".";
    boolean used = relations().keySet().stream().anyMatch(key -> key.startsWith(prefix));
    if (used && !cascade) throw new NonEmptyNamespaceException(namespace, "", scala.Option.empty());
    relations().keySet().removeIf(key -> key.startsWith(prefix));
    return namespaces().remove(lower(namespace)) != null;
  }

  // ---- tables and views

  @Override public Relation loadRelation(Identifier name) throws NoSuchTableException {
    Relation found = relations().get(key(name));
    if (found == null) throw new NoSuchTableException(name);
    return found;
  }

  private Identifier[] list(String[] namespace, Class<?> kind) throws NoSuchNamespaceException {
    loadNamespaceMetadata(namespace);
    String prefix = lower(namespace) + ".";
    return relations().entrySet().stream()
        .filter(each -> each.getKey().startsWith(prefix) && kind.isInstance(each.getValue()))
        .map(each -> Identifier.of(namespace, each.getKey().substring(prefix.length())))
        .toArray(Identifier[]::new);
  }

  @Override public Identifier[] listTables(String[] namespace) throws NoSuchNamespaceException {
    return list(namespace, MemoryTable.class);
  }

  @Override public Identifier[] listViews(String[] namespace) throws NoSuchNamespaceException {
    return list(namespace, View.class);
  }

  private MemoryTable made(Identifier name, TableInfo info, String how) throws NoSuchNamespaceException {
    loadNamespaceMetadata(name.namespace());
    Map<String, String> properties = new HashMap<>(info.properties());
    properties.put("standin.made", how);
    return new MemoryTable(
        catalog + "." + key(name), info.columns(), info.partitions(), properties, info.constraints(), List.of());
  }

  @Override public Table createTable(Identifier name, TableInfo info)
      throws TableAlreadyExistsException, NoSuchNamespaceException {
    MemoryTable table = made(name, info, "create");
    if (relations().putIfAbsent(key(name), table) != null) throw new TableAlreadyExistsException(name);
    return table;
  }

  @Override public StagedTable stageCreate(Identifier name, TableInfo info)
      throws TableAlreadyExistsException, NoSuchNamespaceException {
    if (relations().containsKey(key(name))) throw new TableAlreadyExistsException(name);
    return new Staged(made(name, info, "create"), key(name), relations());
  }

  @Override public StagedTable stageReplace(Identifier name, TableInfo info)
      throws NoSuchNamespaceException, NoSuchTableException {
    if (!relations().containsKey(key(name))) throw new NoSuchTableException(name);
    return new Staged(made(name, info, "replace"), key(name), relations());
  }

  @Override public StagedTable stageCreateOrReplace(Identifier name, TableInfo info) throws NoSuchNamespaceException {
    String how = relations().containsKey(key(name)) ? "replace" : "create";
    return new Staged(made(name, info, how), key(name), relations());
  }

  @Override public Table alterTable(Identifier name, TableChange... changes) throws NoSuchTableException {
    MemoryTable table = (MemoryTable) loadTable(name);
    scala.collection.immutable.Seq<TableChange> wanted =
        scala.jdk.javaapi.CollectionConverters.asScala(Arrays.asList(changes)).toSeq();
    StructType before = table.schema();
    StructType after = CatalogV2Util.applySchemaChanges(before, wanted, scala.Option.apply("delta"), "ALTER TABLE");
    Map<String, String> renamed = new HashMap<>();
    for (TableChange each : changes)
      if (each instanceof TableChange.RenameColumn) {
        TableChange.RenameColumn rename = (TableChange.RenameColumn) each;
        renamed.put(rename.newName(), String.join(".", rename.fieldNames()));
      }
    MemoryTable changed = new MemoryTable(
        table.name,
        CatalogV2Util.structTypeToV2Columns(after, false),
        CatalogV2Util.applyClusterByChanges(table.transforms, after, wanted),
        new HashMap<>(CatalogV2Util.applyPropertiesChanges(table.properties, wanted)),
        CatalogV2Util.collectConstraintChanges(table, wanted),
        before.equals(after) ? table.rows : reshaped(table.rows, before, after, renamed));
    relations().put(key(name), changed);
    return changed;
  }

  private static List<Object[]> reshaped(
      List<Object[]> rows, StructType before, StructType after, Map<String, String> renamed) {
    List<String> names = Arrays.asList(before.fieldNames());
    List<Object[]> result = new ArrayList<>(rows.size());
    for (Object[] row : rows) {
      Object[] values = new Object[after.size()];
      for (int at = 0; at < values.length; at++) {
        StructField field = after.fields()[at];
        int from = names.indexOf(renamed.getOrDefault(field.name(), field.name()));
        if (from < 0 || row[from] == null) continue;
        StructField old = before.fields()[from];
        values[at] = old.dataType().sameType(field.dataType())
            ? row[from]
            : new Cast(Literal.create(row[from], old.dataType()), field.dataType(), scala.Option.apply("UTC"),
                EvalMode.ANSI()).eval(InternalRow.empty());
      }
      result.add(values);
    }
    return result;
  }

  @Override public boolean dropTable(Identifier name) {
    return relations().get(key(name)) instanceof MemoryTable && relations().remove(key(name)) != null;
  }

  @Override public void renameTable(Identifier from, Identifier to)
      throws NoSuchTableException, TableAlreadyExistsException {
    MemoryTable table = (MemoryTable) loadTable(from);
    if (relations().putIfAbsent(key(to), table) != null) throw new TableAlreadyExistsException(to);
    relations().remove(key(from));
  }

  @Override public View createView(Identifier name, View view)
      throws ViewAlreadyExistsException, NoSuchNamespaceException {
    loadNamespaceMetadata(name.namespace());
    if (relations().putIfAbsent(key(name), view) != null) throw new ViewAlreadyExistsException(name);
    return view;
  }

  @Override public View replaceView(Identifier name, View view) throws NoSuchViewException {
    if (!(relations().get(key(name)) instanceof View)) throw new NoSuchViewException(name);
    relations().put(key(name), view);
    return view;
  }

  @Override public boolean dropView(Identifier name) {
    return relations().get(key(name)) instanceof View && relations().remove(key(name)) != null;
  }

  @Override public void renameView(Identifier from, Identifier to)
      throws NoSuchViewException, ViewAlreadyExistsException {
    View view = loadView(from);
    if (relations().putIfAbsent(key(to), view) != null) throw new ViewAlreadyExistsException(to);
    relations().remove(key(from));
  }

  /** A table whose rows are a list that is never changed, only replaced by another one. */
  static class MemoryTable
      implements Table, SupportsRead, SupportsWrite, SupportsRowLevelOperations, TruncatableTable {
    final String name;
    final Column[] columns;
    final Transform[] transforms;
    final Map<String, String> properties;
    final Constraint[] constraints;
    volatile List<Object[]> rows;

    MemoryTable(String name, Column[] columns, Transform[] transforms, Map<String, String> properties,
        Constraint[] constraints, List<Object[]> rows) {
      this.name = name;
      this.columns = columns;
      this.transforms = transforms;
      this.properties = properties;
      this.constraints = constraints == null ? new Constraint[0] : constraints;
      this.rows = rows;
    }

    @Override public String name() { return name; }
    @Override public Column[] columns() { return columns; }
    @Override public StructType schema() { return CatalogV2Util.v2ColumnsToStructType(columns); }
    @Override public Transform[] partitioning() { return transforms; }
    @Override public Map<String, String> properties() { return properties; }
    @Override public Constraint[] constraints() { return constraints; }

    @Override public Set<TableCapability> capabilities() {
      return EnumSet.of(TableCapability.BATCH_READ, TableCapability.BATCH_WRITE,
          TableCapability.TRUNCATE, TableCapability.OVERWRITE_BY_FILTER);
    }

    @Override public boolean truncateTable() { rows = List.of(); return true; }

    @Override public ScanBuilder newScanBuilder(CaseInsensitiveStringMap options) {
      return () -> new MemoryScan(schema(), new ArrayList<>(rows));
    }

    @Override public WriteBuilder newWriteBuilder(LogicalWriteInfo info) {
      return new MemoryWrite(this, info.schema(), false);
    }

    @Override public RowLevelOperationBuilder newRowLevelOperationBuilder(RowLevelOperationInfo info) {
      MemoryTable table = this;
      return () -> new RowLevelOperation() {
        @Override public Command command() { return info.command(); }
        @Override public ScanBuilder newScanBuilder(CaseInsensitiveStringMap options) {
          return table.newScanBuilder(options);
        }
        @Override public WriteBuilder newWriteBuilder(LogicalWriteInfo write) {
          return new MemoryWrite(table, write.schema(), true);
        }
      };
    }
  }

  /** A table that takes its place when the statement that fills it has ended. */
  static class Staged extends MemoryTable implements StagedTable {
    private final String key;
    private final Map<String, Relation> relations;

    Staged(MemoryTable table, String key, Map<String, Relation> relations) {
      super(table.name, table.columns, table.transforms, table.properties, table.constraints, table.rows);
      this.key = key;
      this.relations = relations;
    }

    @Override public void commitStagedChanges() {
      relations.put(key, new MemoryTable(name, columns, transforms, properties, constraints, rows));
    }

    @Override public void abortStagedChanges() {}

    @Override public org.apache.spark.sql.connector.metric.CustomTaskMetric[] reportDriverMetrics() {
      return new org.apache.spark.sql.connector.metric.CustomTaskMetric[0];
    }
  }

  static class MemoryScan implements Scan, Batch {
    private final StructType schema;
    private final ArrayList<Object[]> rows;

    MemoryScan(StructType schema, ArrayList<Object[]> rows) { this.schema = schema; this.rows = rows; }

    @Override public StructType readSchema() { return schema; }
    @Override public Batch toBatch() { return this; }
    @Override public InputPartition[] planInputPartitions() { return new InputPartition[] {new Partition(rows)}; }
    @Override public PartitionReaderFactory createReaderFactory() { return new Readers(); }
  }

  static class Partition implements InputPartition {
    final ArrayList<Object[]> rows;

    Partition(ArrayList<Object[]> rows) { this.rows = rows; }
  }

  static class Readers implements PartitionReaderFactory {
    @Override public PartitionReader<InternalRow> createReader(InputPartition partition) {
      Iterator<Object[]> rows = ((Partition) partition).rows.iterator();
      return new PartitionReader<InternalRow>() {
        private Object[] row;

        @Override public boolean next() {
          if (!rows.hasNext()) return false;
          row = rows.next();
          return true;
        }

        @Override public InternalRow get() { return new GenericInternalRow(row.clone()); }
        @Override public void close() {}
      };
    }
  }

  static class MemoryWrite implements WriteBuilder, SupportsOverwriteV2, Write, BatchWrite {
    private final MemoryTable table;
    private final StructType schema;
    private boolean replaces;
    private Predicate[] replaced = {};

    MemoryWrite(MemoryTable table, StructType schema, boolean replaces) {
      this.table = table;
      this.schema = schema;
      this.replaces = replaces;
    }

    @Override public WriteBuilder truncate() { replaces = true; return this; }

    @Override public boolean canOverwrite(Predicate[] predicates) {
      for (Predicate each : predicates) if (!each.name().equals("IN") && !each.name().equals("=")) return false;
      return true;
    }

    @Override public WriteBuilder overwrite(Predicate[] predicates) { replaced = predicates; return this; }

    /** Whether a row is one of those that are replaced: `column IN (values)` for each of the conditions. */
    private boolean isReplaced(Object[] row) {
      for (Predicate each : replaced) {
        Expression[] parts = each.children();
        int column = Arrays.asList(table.schema().fieldNames()).indexOf(((NamedReference) parts[0]).fieldNames()[0]);
        boolean found = false;
        for (int at = 1; at < parts.length; at++) {
          Object value = ((org.apache.spark.sql.connector.expressions.Literal<?>) parts[at]).value();
          found |= value != null && value.equals(row[column]);
        }
        if (!found) return false;
      }
      return replaced.length > 0;
    }

    @Override public Write build() { return this; }
    @Override public BatchWrite toBatch() { return this; }
    @Override public DataWriterFactory createBatchWriterFactory(PhysicalWriteInfo info) { return new Writers(schema); }

    @Override public void commit(WriterCommitMessage[] messages) {
      synchronized (table) {
        List<Object[]> rows = new ArrayList<>();
        if (!replaces) for (Object[] row : table.rows) if (!isReplaced(row)) rows.add(row);
        for (WriterCommitMessage each : messages) if (each != null) rows.addAll(((Written) each).rows);
        table.rows = rows;
      }
    }

    @Override public void abort(WriterCommitMessage[] messages) {}
  }

  static class Written implements WriterCommitMessage {
    final ArrayList<Object[]> rows;

    Written(ArrayList<Object[]> rows) { this.rows = rows; }
  }

  static class Writers implements DataWriterFactory {
    private final StructType schema;

    Writers(StructType schema) { this.schema = schema; }

    @Override public DataWriter<InternalRow> createWriter(int partition, long task) {
      StructField[] fields = schema.fields();
      return new DataWriter<InternalRow>() {
        private final ArrayList<Object[]> rows = new ArrayList<>();

        @Override public void write(InternalRow row) {
          Object[] values = new Object[fields.length];
          for (int at = 0; at < values.length; at++)
            values[at] = row.isNullAt(at) ? null : InternalRow.copyValue(row.get(at, fields[at].dataType()));
          rows.add(values);
        }

        @Override public WriterCommitMessage commit() { return new Written(rows); }
        @Override public void abort() {}
        @Override public void close() {}
      };
    }
  }
}
