"""Everything that the record uses of Optuna and that is not its public interface; setup.cfg bounds Optuna's version.

- ``Study._storage``: the storage of a study. The record needs ids of trials, writes one template for a whole trial, and
  sets attributes of trials that other processes may have ended; the methods for that are those of the public class
  `optuna.storages.BaseStorage`, but a study does not give its storage away. A database is wrapped in a cache there.
- ``Study._study_id`` and ``FrozenTrial._trial_id``: the ids by which a storage knows a study and a trial. The public
  interface takes a query for each.
- ``BaseHeartbeat._get_stale_trial_ids``: trials whose drivers have sent no heartbeat. The public
  `optuna.storages.fail_stale_trials` also ends trials of this process, when it was suspended for a while.
- ``optuna.artifacts._upload.ARTIFACTS_ATTR_PREFIX``: where optuna-dashboard finds a trial's artifacts. The public
  `upload_artifact` chooses the id of an artifact itself; those of the record are made from its content.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from optuna import Study
    from optuna.storages import BaseStorage, RDBStorage
    from optuna.trial import FrozenTrial


def storage_of(study: Study) -> BaseStorage:
    """The storage of a study."""
    return study._storage


def study_id(study: Study) -> int:
    """The id by which the storage knows a study."""
    return study._study_id


def trial_id(trial: FrozenTrial) -> int:
    """The id by which the storage knows a trial."""
    return trial._trial_id


def stale_trials(database: RDBStorage, study: Study) -> list[int]:
    """Ids of running trials without a heartbeat for two intervals."""
    return database._get_stale_trial_ids(study_id(study))


def artifact_attribute(artifact: str = "") -> str:
    """The name of the system attribute that describes an artifact of a trial; all of them begin with that of ``""``."""
    from optuna.artifacts._upload import ARTIFACTS_ATTR_PREFIX

    return ARTIFACTS_ATTR_PREFIX + artifact
