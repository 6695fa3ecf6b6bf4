"""Where accepted messages are kept: durable before the 250, there after any crash.

"Once 250 is said, the message is delivered, or bounced, or still in the spool."

A spool is a directory that one process owns::

    lock             held by flock; names the owner
    spool.sqlite3    messages, small bodies, and where the large ones are
    segments/*.seg   large bodies, appended one after the other

Why two kinds of files: SQLite's crash behaviour is the best tested there is, an index by due time
comes with it, and anybody can look inside. But a body of 100 KB costs several times as much in a
database as at the end of a file. So bodies above C{large_body_threshold} go to segment files,
which are synced I{before} the commit that refers to them and deleted I{after} the one that removed
the last reference. Whatever moment a crash picks, all it leaves is octets nobody refers to.

Group commit: what is asked of the spool in a turn of the reactor, or while a commit is under way,
shares the next commit. Alone, a message costs one C{fsync} (two if it is large); under load many
cost one. Removals and new due times ride along with the next message that is stored; when none
comes for a tenth of a second they are committed alone.

When the disk is full or broken: stores fail, and nothing of them is kept. Updates and removals are
kept in memory, the latest for each message, and tried again every second until they succeed.
Meanwhile C{writable} is false, and deliveries must not start: their outcome could not be recorded,
and the message would be delivered again after a crash.

The modules: L{sqlite_spool<kumotwist.spool.sqlite_spool>} is what the reactor's thread sees;
C{worker} the threads; C{storage} what the writer's thread does in a commit, with C{database} (all
SQL), C{segments} (with C{appender}, C{bodies} and C{survivors}) and C{ownership} (the directory and
its lock); C{reader} the other connection; C{records} messages as rows with checksums; C{changes}
what passes between the threads; C{gathering} when a commit begins; C{refusals} what is logged of a
full disk. C{survey} reads a spool as it is, damage included, and C{inspection} and C{repair} (with
C{salvage}, C{leaves} and C{set_aside}) are what C{kumo spool check} does. C{moving} empties a spool
into another one, and C{unfinished} ends what a kill has left of that.
"""

from kumotwist.spool.disk import Disk
from kumotwist.spool.errors import (
    DamagedBodyError,
    DamagedRecordError,
    SpoolClosedError,
    SpoolError,
    SpoolFullError,
    SpoolLockedError,
    UnstorableMessageError,
)
from kumotwist.spool.settings import SpoolSettings
from kumotwist.spool.sqlite_spool import SQLiteSpool
from kumotwist.spool.worker import Worker, WorkerThread

__all__ = [
    "DamagedBodyError",
    "DamagedRecordError",
    "Disk",
    "SQLiteSpool",
    "SpoolClosedError",
    "SpoolError",
    "SpoolFullError",
    "SpoolLockedError",
    "SpoolSettings",
    "UnstorableMessageError",
    "Worker",
    "WorkerThread",
]
