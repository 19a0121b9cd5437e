"""TCLIService, the Thrift service of a SQL warehouse, as databricks-sql-connector speaks it."""

# ruff: noqa: N802  (the names of the methods are those of the Thrift service)
from __future__ import annotations

import re
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

import pyarrow as pa
from databricks.sql.thrift_api.TCLIService import TCLIService
from databricks.sql.thrift_api.TCLIService import ttypes as t

from tests.support.databricks_standin.engine import Engine, Session
from tests.support.databricks_standin.faults import Faults
from tests.support.databricks_standin.journal import Journal
from tests.support.databricks_standin.statements import Answer, answer, bare, text_table
from tests.support.databricks_standin.volumes import Volumes

_OK = t.TStatus(statusCode=t.TStatusCode.SUCCESS_STATUS)
_VERSION = t.TProtocolVersion.SPARK_CLI_SERVICE_PROTOCOL_V7
_KINDS: tuple[tuple[Callable[[Any], bool], int], ...] = (
    (pa.types.is_boolean, t.TTypeId.BOOLEAN_TYPE),
    (pa.types.is_int8, t.TTypeId.TINYINT_TYPE),
    (pa.types.is_int16, t.TTypeId.SMALLINT_TYPE),
    (pa.types.is_int32, t.TTypeId.INT_TYPE),
    (pa.types.is_int64, t.TTypeId.BIGINT_TYPE),
    (pa.types.is_float32, t.TTypeId.FLOAT_TYPE),
    (pa.types.is_float64, t.TTypeId.DOUBLE_TYPE),
    (pa.types.is_date, t.TTypeId.DATE_TYPE),
    (pa.types.is_timestamp, t.TTypeId.TIMESTAMP_TYPE),
    (pa.types.is_binary, t.TTypeId.BINARY_TYPE),
    (pa.types.is_list, t.TTypeId.ARRAY_TYPE),
    (pa.types.is_map, t.TTypeId.MAP_TYPE),
    (pa.types.is_struct, t.TTypeId.STRUCT_TYPE),
)


class Caller(threading.local):
    """Who sends the request that this thread answers."""

    user = ""
    agent = ""


class Service:
    """All sessions and their results.

    Args:
        engine: the engine.
        volumes: the volumes.
        journal: where each statement is written down.
        faults: what has to go wrong.
        caller: who asks.
    """

    def __init__(self, engine: Engine, volumes: Volumes, journal: Journal, faults: Faults, caller: Caller) -> None:
        self.engine = engine
        self.volumes = volumes
        self.journal = journal
        self.faults = faults
        self.caller = caller
        self.sessions: dict[bytes, Session] = {}
        self.results: dict[bytes, tuple[pa.Table, str | None]] = {}
        self.processor = TCLIService.Processor(self)

    def OpenSession(self, request: Any) -> Any:
        space = request.initialNamespace or t.TNamespace()
        settings = {
            name: value
            for name, value in (request.configuration or {}).items()
            if not name.startswith("spark.thriftserver")
        }
        if space.catalogName and space.catalogName not in [*self.engine.catalogs, "hive_metastore"]:
            text = f"[NO_SUCH_CATALOG_EXCEPTION] Catalog '{space.catalogName}' was not found. SQLSTATE: 42704"
            self.journal.write("refused", catalog=space.catalogName)
            status = t.TStatus(statusCode=t.TStatusCode.ERROR_STATUS, errorMessage=text)
            return t.TOpenSessionResp(status=status, serverProtocolVersion=_VERSION)
        handle = _handle()
        self.sessions[handle.guid] = Session(self.engine, space.catalogName, space.schemaName, settings)
        self.journal.write(
            "open",
            session=handle.guid.hex()[:8],
            catalog=space.catalogName,
            schema=space.schemaName,
            settings=settings,
            user=self.caller.user,
            agent=self.caller.agent,
        )
        return t.TOpenSessionResp(
            status=_OK,
            serverProtocolVersion=_VERSION,
            sessionHandle=t.TSessionHandle(sessionId=handle),
            initialNamespace=request.initialNamespace,
            canUseMultipleCatalogs=True,
        )

    def CloseSession(self, request: Any) -> Any:
        self.sessions.pop(request.sessionHandle.sessionId.guid, None)
        return t.TCloseSessionResp(status=_OK)

    def ExecuteStatement(self, request: Any) -> Any:
        text = request.statement

        def run(session: Session) -> Answer:
            with self.faults.around(bare(text)):
                return answer(session, self.volumes, text)

        return self._respond(t.TExecuteStatementResp, request, run, text)

    def GetCatalogs(self, request: Any) -> Any:
        found = text_table(TABLE_CAT=self.engine.catalogs)
        return self._respond(t.TGetCatalogsResp, request, lambda _: Answer(found, "emulated:metadata"), "GetCatalogs")

    def GetSchemas(self, request: Any) -> Any:
        def run(session: Session) -> Answer:
            catalog = request.catalogName or self.engine.catalogs[0]
            names = [row[0] for row in session.spark.sql(f"SHOW SCHEMAS IN `{catalog}`").collect()]
            wanted = [name for name in names if request.schemaName in (None, "", "%", "*", name)]
            table = text_table(TABLE_SCHEM=wanted, TABLE_CATALOG=[catalog] * len(wanted))
            return Answer(table, "emulated:metadata")

        return self._respond(t.TGetSchemasResp, request, run, "GetSchemas")

    def GetTables(self, request: Any) -> Any:
        def run(_: Session) -> Answer:
            catalog = request.catalogName or self.engine.catalogs[0]
            found = [
                relation
                for relation in self.engine.relations(catalog)
                if request.schemaName in (None, "", "%", relation[0])
            ]
            table = text_table(
                TABLE_CAT=[catalog] * len(found),
                TABLE_SCHEM=[relation[0] for relation in found],
                TABLE_NAME=[relation[1] for relation in found],
                TABLE_TYPE=[relation[2] for relation in found],
                REMARKS=[relation[4] for relation in found],
            )
            return Answer(table, "emulated:metadata")

        return self._respond(t.TGetTablesResp, request, run, "GetTables")

    def GetOperationStatus(self, request: Any) -> Any:
        return self._status(request.operationHandle.operationId.guid)

    def GetResultSetMetadata(self, request: Any) -> Any:
        return self._metadata(request.operationHandle.operationId.guid)

    def FetchResults(self, request: Any) -> Any:
        key = request.operationHandle.operationId.guid
        response = self._rows(key)
        if request.includeResultSetMetadata:
            response.resultSetMetadata = self._metadata(key)
        return response

    def CloseOperation(self, request: Any) -> Any:
        self.results.pop(request.operationHandle.operationId.guid, None)
        return t.TCloseOperationResp(status=_OK)

    def CancelOperation(self, request: Any) -> Any:
        return t.TCancelOperationResp(status=_OK)

    def GetInfo(self, request: Any) -> Any:
        return t.TGetInfoResp(status=_OK, infoValue=t.TGetInfoValue(stringValue="Spark SQL"))

    def _respond(self, kind: Any, request: Any, run: Callable[[Session], Answer], text: str) -> Any:
        key = request.sessionHandle.sessionId.guid
        session, handle, started = self.sessions[key], _handle(), time.monotonic()
        table, how, error = text_table(), "refused", None
        try:
            with session.lock:
                table, how = run(session)
        except Exception as raised:  # noqa: BLE001  (whatever it is, the client is to be told)
            error = re.sub(r"\s*JVM stacktrace:.*", "", str(raised), flags=re.S).strip()
        self.journal.write(
            "statement",
            session=key.hex()[:8],
            user=self.caller.user,
            how=how,
            seconds=round(time.monotonic() - started, 3),
            rows=table.num_rows,
            error=error and error[:500],
            tags=session.settings.get("QUERY_TAGS"),
            sql=text,
        )
        self.results[handle.guid] = (table, error)
        operation = t.TOperationHandle(
            operationId=handle, operationType=t.TOperationType.EXECUTE_STATEMENT, hasResultSet=error is None
        )
        direct = t.TSparkDirectResults(
            operationStatus=self._status(handle.guid), closeOperation=t.TCloseOperationResp(status=_OK)
        )
        if error is None:
            direct.resultSetMetadata, direct.resultSet = self._metadata(handle.guid), self._rows(handle.guid)
        del self.results[handle.guid]  # the whole result went with the answer
        return kind(status=_OK, operationHandle=operation, directResults=direct)

    def _status(self, key: bytes) -> Any:
        error = self.results[key][1]
        if error is None:
            state = t.TOperationState.FINISHED_STATE
            return t.TGetOperationStatusResp(status=_OK, operationState=state, hasResultSet=True)
        return t.TGetOperationStatusResp(
            status=_OK,
            operationState=t.TOperationState.ERROR_STATE,
            sqlState="HY000",
            errorCode=0,
            errorMessage=error,
            displayMessage=error,
        )

    def _metadata(self, key: bytes) -> Any:
        schema = self.results[key][0].schema
        columns = [
            t.TColumnDesc(field.name, t.TTypeDesc([t.TTypeEntry(primitiveEntry=_type(field.type))]), place, "")
            for place, field in enumerate(schema, 1)
        ]
        return t.TGetResultSetMetadataResp(
            status=_OK,
            schema=t.TTableSchema(columns),
            resultFormat=t.TSparkRowSetType.ARROW_BASED_SET,
            lz4Compressed=False,
            arrowSchema=schema.serialize().to_pybytes(),
            isStagingOperation=False,
        )

    def _rows(self, key: bytes) -> Any:
        table = self.results[key][0]
        batches = [
            t.TSparkArrowBatch(batch=batch.serialize().to_pybytes(), rowCount=batch.num_rows)
            for batch in (table.combine_chunks().to_batches() if table.num_columns else [])
        ]
        rows = t.TRowSet(startRowOffset=0, rows=[], arrowBatches=batches)
        return t.TFetchResultsResp(status=_OK, hasMoreRows=False, results=rows)


def _handle() -> Any:
    return t.THandleIdentifier(guid=uuid.uuid4().bytes, secret=b"\0" * 16)


def _type(kind: Any) -> Any:
    if pa.types.is_decimal(kind):
        sizes = {"precision": kind.precision, "scale": kind.scale}
        qualifiers = t.TTypeQualifiers({name: t.TTypeQualifierValue(i32Value=size) for name, size in sizes.items()})
        return t.TPrimitiveTypeEntry(type=t.TTypeId.DECIMAL_TYPE, typeQualifiers=qualifiers)
    found = next((number for matches, number in _KINDS if matches(kind)), t.TTypeId.STRING_TYPE)
    return t.TPrimitiveTypeEntry(type=found)
