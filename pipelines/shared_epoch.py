"""What helpers that hide in the workers of a DataLoader share: a policy, and an epoch that reaches the workers."""

from __future__ import annotations

import torch

from has_dali.pipelines.policy_schedule import Policy


class SharedEpoch:
    """A policy and the epoch that its masks are drawn for; a mixin.

    The epoch lies in shared memory: what ``set_epoch`` writes reaches the workers that live on between epochs.
    """

    def _share(self, policy: Policy) -> None:
        """Take the policy.

        Raises:
            TypeError: it is none.
        """
        if not hasattr(policy, "with_") and not hasattr(policy, "at"):
            raise TypeError(f"policy={policy!r}: expected a HideAndSeek or a PolicySchedule")
        self.policy = policy
        self._epoch = torch.zeros(1, dtype=torch.int64).share_memory_()

    @property
    def epoch(self) -> int:
        """The epoch that masks are drawn for."""
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Call it before each epoch, with sample ids or a schedule; without them keys differ anyway."""
        self._epoch.fill_(epoch)
