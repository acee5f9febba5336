package mail

import (
	"bytes"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/emersion/go-message/charset"
	"golang.org/x/text/encoding/charmap"
)

// toUTF8 reads s in the named charset. Unknown ones, and text that is not what it claims
// to be, are read as UTF-8 if they are valid, else as Windows-1252, Latin-1's
// superset (as WHATWG's Encoding Standard §4.2 does).
func toUTF8(s, name string) string {
	name = strings.ToLower(strings.Trim(name, " \t\"'"))
	switch name {
	case "", "utf-8", "utf8", "us-ascii", "ascii":
		return validText(s)
	}
	r, err := charset.Reader(name, strings.NewReader(s))
	if err != nil {
		return validText(s)
	}
	var b bytes.Buffer
	b.Grow(len(s))
	// No charset's text grows more than threefold in UTF-8; a decoder that fails
	// half-way has not read all.
	if _, err := io.Copy(&b, io.LimitReader(r, 4*int64(len(s))+16)); err != nil {
		return validText(s)
	}
	return strings.ToValidUTF8(b.String(), "\ufffd")
}

// validText returns s if it is valid UTF-8, else reads it as Windows-1252.
func validText(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	t, err := charmap.Windows1252.NewDecoder().String(s)
	if err != nil {
		return strings.ToValidUTF8(s, "\ufffd")
	}
	return t
}
