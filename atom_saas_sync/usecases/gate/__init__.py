"""The gate as runs and people use it: load the policy, judge what waits, decide, carry it out."""
