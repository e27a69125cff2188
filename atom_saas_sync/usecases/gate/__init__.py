"""The gate's use cases: load the policy, judge waiting versions, decide, and carry decisions out."""
