"""Where payments come from: files, messages, tables of engines. Checks no rule of the contract."""
