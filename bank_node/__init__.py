"""The bank's side of Crossbank: boosting, keys, encryption, client, evaluation and scoring."""
