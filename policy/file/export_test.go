package file

// ParseInPieces is Parse with pieces of another size.
var ParseInPieces = parse
