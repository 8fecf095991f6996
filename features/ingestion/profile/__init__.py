"""A look at a bank's own payments: a draft of the mapping, a report of what is in the columns, a trial of the draft."""

from features.ingestion.profile.drafting import Draft, SourceProfile, draft_mapping
from features.ingestion.profile.report import profile_page

__all__ = ["Draft", "SourceProfile", "draft_mapping", "profile_page"]
