"""The private parts of Optuna that the record uses; setup.cfg bounds Optuna's version.

- ``Study._storage``: the storage of a study. The record needs ids of trials, writes one template for a whole trial, and
  sets attributes of trials that other processes may have ended. These are methods of the public class
  `optuna.storages.BaseStorage`, but a study does not expose its storage, which wraps a database in a cache.
- ``Study._study_id`` and ``FrozenTrial._trial_id``: the ids by which a storage knows a study and a trial. The public
  interface needs a query for each.
- ``BaseHeartbeat._get_stale_trial_ids``: trials whose drivers have sent no heartbeat. The public
  `optuna.storages.fail_stale_trials` also fails trials of this process, if it was suspended for a while.
- ``optuna.artifacts._upload.ARTIFACTS_ATTR_PREFIX``: where optuna-dashboard finds a trial's artifacts. The public
  `upload_artifact` chooses random ids; those of the record are hashes of the content.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from optuna import Study
    from optuna.storages import BaseStorage, RDBStorage
    from optuna.trial import FrozenTrial


def storage_of(study: Study) -> BaseStorage:
    return study._storage


def study_id(study: Study) -> int:
    return study._study_id


def trial_id(trial: FrozenTrial) -> int:
    return trial._trial_id


def stale_trials(database: RDBStorage, study: Study) -> list[int]:
    """Ids of running trials without a heartbeat for two intervals."""
    return database._get_stale_trial_ids(study_id(study))


def artifact_attribute(artifact: str = "") -> str:
    """The system attribute that describes an artifact of a trial; by default, the prefix of all of them."""
    from optuna.artifacts._upload import ARTIFACTS_ATTR_PREFIX

    return ARTIFACTS_ATTR_PREFIX + artifact
