"""From files to the one series that is analysed: headers, parts, geometry, the rules, the choice and its reasons."""
