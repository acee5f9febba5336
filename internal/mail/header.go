package mail

import (
	"io"
	"mime"
	"strings"

	"github.com/emersion/go-message/charset"
	"golang.org/x/text/encoding/charmap"
)

// Bounds of a header section: what lies past them stays in the message, but its
// fields are not in Header.Fields, and Header.Truncated is set.
const (
	maxHeaderBytes = 1 << 20
	maxFields      = 10_000
	// maxEncodedValue is the longest value in which encoded words are decoded.
	maxEncodedValue = 64 << 10
)

// Field is one header field.
type Field struct {
	// Name is the field's name as it was written.
	Name string
	// Value is all that follows the colon, raw, with its folds as CRLF, without
	// the last line end.
	Value string
	// Range are the field's bytes in the message, its last CRLF included.
	Range Range
}

// Text returns the value unfolded and trimmed, its encoded words (RFC 2047)
// decoded to UTF-8 as far as they can be.
func (f Field) Text() string { return decodeWords(unfold(f.Value)) }

// Header is a header section: the fields in order. Read-only once made.
type Header struct {
	Fields []Field
	// Range are the bytes of the section without the empty line that ends it.
	Range Range
	// Truncated says that there are more fields than are kept: the section is
	// longer than 1 MiB or has more than 10,000 fields.
	Truncated bool
}

// add keeps a field within the bounds. Range.End is kept up to date.
func (h *Header) add(f Field) {
	h.Range.End = f.Range.End
	if f.Range.End-h.Range.Start > maxHeaderBytes || len(h.Fields) >= maxFields {
		h.Truncated = true
	}
	if h.Truncated {
		return
	}
	h.Fields = append(h.Fields, f)
}

// All returns the fields of that name, in order, without regard to case.
func (h *Header) All(name string) []Field {
	if h == nil {
		return nil
	}
	var all []Field
	for _, f := range h.Fields {
		if strings.EqualFold(f.Name, name) {
			all = append(all, f)
		}
	}
	return all
}

// Has reports whether there is a field of that name.
func (h *Header) Has(name string) bool {
	_, ok := h.first(name)
	return ok
}

func (h *Header) first(name string) (Field, bool) {
	if h != nil {
		for _, f := range h.Fields {
			if strings.EqualFold(f.Name, name) {
				return f, true
			}
		}
	}
	return Field{}, false
}

// Get returns the first field's value of that name, unfolded and trimmed, or "".
func (h *Header) Get(name string) string {
	f, _ := h.first(name)
	return unfold(f.Value)
}

// Text returns the first field's value of that name, unfolded, its encoded words
// (RFC 2047) decoded to UTF-8 as far as they can be.
func (h *Header) Text(name string) string {
	f, _ := h.first(name)
	return f.Text()
}

// unfold removes line ends (RFC 5322 §2.2.3) and blanks at both ends.
func unfold(v string) string {
	if strings.ContainsAny(v, "\r\n") {
		v = strings.ReplaceAll(strings.ReplaceAll(v, "\r\n", ""), "\n", "")
	}
	return strings.Trim(v, " \t\r\n")
}

// decodeWords decodes encoded words; what can't be decoded stays as it is.
func decodeWords(v string) string {
	if !strings.Contains(v, "=?") || len(v) > maxEncodedValue {
		return validText(v)
	}
	dec := mime.WordDecoder{CharsetReader: func(name string, input io.Reader) (io.Reader, error) {
		if r, err := charset.Reader(name, input); err == nil {
			return r, nil
		}
		return charmap.Windows1252.NewDecoder().Reader(input), nil
	}}
	if s, err := dec.DecodeHeader(v); err == nil {
		return validText(s)
	}
	return validText(v)
}
