"""How numbers are said in sentences, the same in reports, commands, pages and logs."""
