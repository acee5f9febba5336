package testkit

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"iter"
	"slices"
	"strings"
)

// Modification is one change that a filter asked for at the end of a message.
// Kind is the letter of the protocol: h add field, i insert field, m change field,
// b body chunk, e sender, + recipient, 2 recipient with arguments, - recipient
// taken off, q quarantine.
type Modification struct {
	Kind  byte
	Index uint32 // of i and m
	Name  string // field name; address of e + 2 -; reason of q
	Value string // field value; arguments of e and 2
	Body  []byte // of b
}

// String returns it in one line, body chunks by their length.
func (m Modification) String() string {
	switch m.Kind {
	case 'b':
		return fmt.Sprintf("b %d bytes", len(m.Body))
	case 'i', 'm':
		return fmt.Sprintf("%c %d %s: %q", m.Kind, m.Index, m.Name, m.Value)
	default:
		return fmt.Sprintf("%c %s: %q", m.Kind, m.Name, m.Value)
	}
}

// parseModification reads the frame of a change.
func parseModification(code byte, body []byte) (Modification, error) {
	m := Modification{Kind: code}
	malformed := fmt.Errorf("malformed %q of %d bytes", code, len(body))
	want := 1 // strings
	switch code {
	case 'b':
		m.Body = bytes.Clone(body)
		return m, nil
	case 'i', 'm':
		if len(body) < 4 {
			return m, malformed
		}
		m.Index, body = binary.BigEndian.Uint32(body), body[4:]
		want = 2
	case 'h':
		want = 2
	case 'e', '2':
		if bytes.Count(body, []byte{0}) > 1 {
			want = 2
		}
	case '+', '-', 'q':
	default:
		return m, fmt.Errorf("unknown reply %q", code)
	}
	parts := bytes.Split(body, []byte{0})
	if len(parts) != want+1 || len(parts[want]) != 0 || len(parts[0]) == 0 && code != 'e' {
		return m, malformed
	}
	m.Name = string(parts[0])
	if want == 2 {
		m.Value = string(parts[1])
	}
	return m, nil
}

// Changed is a message after a filter's changes.
type Changed struct {
	Sender     string
	Recipients []string
	Data       []byte
	// Hold is the reason of a quarantine in the MTA, "" if there was none.
	Hold string
}

// Fields returns the values of all header fields of that name, unfolded.
func (c Changed) Fields(name string) []string {
	return Delivery{Data: c.Data}.Fields(name)
}

// Apply does the changes as Postfix does them to the message that was sent. The
// Received field of the MTA itself, above which a field is inserted at 0 and below
// which at 1, isn't part of the result.
func (c *MilterClient) Apply(m MilterMail, changes []Modification) Changed {
	header, body := splitMessage(m.Data)
	lines := []string{""} // stands for the MTA's own Received field
	for f := range fields(header) {
		lines = append(lines, string(f))
	}
	out := Changed{Sender: firstWord(m.Sender)}
	for _, r := range m.Recipients {
		out.Recipients = append(out.Recipients, firstWord(r))
	}
	var replaced []byte
	for _, change := range changes {
		switch address := strings.Trim(change.Name, "<>"); change.Kind {
		case 'b':
			replaced = append(replaced, change.Body...)
		case 'e':
			out.Sender = address
		case '+', '2':
			out.Recipients = append(out.Recipients, address)
		case '-':
			out.Recipients = slices.DeleteFunc(out.Recipients, func(r string) bool { return r == address })
		case 'q':
			out.Hold = change.Name
		default:
			lines = c.changeHeader(lines, change)
		}
	}
	if replaced != nil {
		body = replaced
	}
	out.Data = slices.Concat([]byte(strings.Join(lines, "")), []byte("\r\n"), body)
	return out
}

func (c *MilterClient) changeHeader(lines []string, change Modification) []string {
	separator := ": "
	if c.Steps&StepHeaderLeadSpace != 0 {
		separator = ":"
	}
	value := strings.ReplaceAll(strings.ReplaceAll(change.Value, "\r\n", "\n"), "\n", "\r\n")
	line := change.Name + separator + value + "\r\n"
	switch change.Kind {
	case 'i':
		return slices.Insert(lines, min(int(change.Index), len(lines)), line)
	case 'm':
		seen := uint32(0)
		for i, l := range lines {
			if name, _, ok := strings.Cut(l, ":"); !ok || !strings.EqualFold(name, change.Name) {
				continue
			}
			if seen++; seen < max(1, change.Index) {
				continue
			}
			if change.Value == "" {
				return slices.Delete(lines, i, i+1)
			}
			lines[i] = line
			return lines
		}
		if change.Value == "" {
			return lines
		}
	}
	return append(lines, line)
}

// splitMessage parts header section and body at the empty line, which neither
// holds.
func splitMessage(data []byte) (header, body []byte) {
	if rest, ok := bytes.CutPrefix(data, []byte("\r\n")); ok {
		return nil, rest
	}
	header, body, found := bytes.Cut(data, []byte("\r\n\r\n"))
	if !found {
		return data, nil
	}
	return data[:len(header)+2], body
}

// fields yields each header field with its line ends.
func fields(header []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for len(header) > 0 {
			end := len(header)
			for i := 0; ; {
				n := bytes.IndexByte(header[i:], '\n')
				if n < 0 {
					break
				}
				if i += n + 1; i == len(header) || header[i] != ' ' && header[i] != '\t' {
					end = i
					break
				}
			}
			if !yield(header[:end]) {
				return
			}
			header = header[end:]
		}
	}
}

func firstWord(s string) string {
	word, _, _ := strings.Cut(s, " ")
	return word
}
