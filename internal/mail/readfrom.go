package mail

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
)

// ReadFrom reads a whole message (header, empty line, body) from r, as `sluice
// scan` has it, and completes it; it returns the bytes it read. The message is
// then what an MTA would hold:
//   - An mbox "From " line in front is left out.
//   - If the first line ends in LF alone, each bare LF becomes CRLF, as sending it by
//     SMTP would make it; else the file is kept byte for byte.
//   - A line in the header that is no field ends it; an empty line is put before
//     it, as Postfix does (cleanup(8)), and it is the body's first line.
//   - NUL and lone CR stay where they are.
//
// On an error the message is aborted. It is an error to call it on a message that
// has begun; io.Copy into one does so.
func (m *Message) ReadFrom(r io.Reader) (int64, error) {
	if m.Size() > 0 {
		return 0, errors.New("spool: ReadFrom on a message that has begun")
	}
	counted := &countingReader{r: r}
	err := m.readFrom(bufio.NewReaderSize(counted, smallMessage))
	if err == nil {
		err = m.Complete()
	}
	if err != nil {
		m.Abort()
	}
	return counted.n, err
}

func (m *Message) readFrom(r *bufio.Reader) error {
	lines := lineReader{r: r}
	line, err := lines.next()
	if isMboxLine(line) {
		for err == nil && !bytes.HasSuffix(line, []byte("\n")) {
			line, err = lines.next()
		}
		if err == nil {
			line, err = lines.next()
		}
	}
	var field []byte
	flush := func() error {
		if len(field) == 0 {
			return nil
		}
		name, value, _ := splitField(field)
		werr := m.addField(string(name), string(value), field)
		field = field[:0]
		return werr
	}
	// The header: each line is a field's first, a field's next, or the end.
	for {
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("read message: %w", err)
		}
		whole := bytes.HasSuffix(line, []byte("\n"))
		_, _, isField := splitField(line)
		continues := len(field) > 0 && len(line) > 0 && (line[0] == ' ' || line[0] == '\t' || lines.amid)
		switch {
		case len(line) == 0 || len(bytes.TrimRight(line, "\r\n")) == 0 && !continues:
			if werr := flush(); werr != nil {
				return werr
			}
			if werr := m.EndHeader(); werr != nil {
				return werr
			}
			return m.copyLines(&lines, err)
		case continues, isField:
			if !continues {
				if werr := flush(); werr != nil {
					return werr
				}
			}
			if len(field)+len(line) > maxHeaderBytes {
				return m.longHeader(&lines, field, line, err)
			}
			field = append(field, line...)
			if !whole && errors.Is(err, io.EOF) {
				field = append(field, '\r', '\n')
			}
		default:
			if werr := flush(); werr != nil {
				return werr
			}
			if werr := m.EndHeader(); werr != nil {
				return werr
			}
			if _, werr := m.Write(line); werr != nil {
				return werr
			}
			return m.copyLines(&lines, err)
		}
		if errors.Is(err, io.EOF) {
			line = nil
			continue
		}
		line, err = lines.next()
	}
}

// isMboxLine reports whether a line is what mbox files have between messages,
// quoted or not, and not the field "From :".
func isMboxLine(line []byte) bool {
	_, _, isField := splitField(line)
	return !isField && bytes.HasPrefix(bytes.TrimPrefix(line, []byte(">")), []byte("From "))
}

// longHeader ends the header at a field longer than a header section may be:
// its bytes are kept, as body.
func (m *Message) longHeader(lines *lineReader, field, line []byte, err error) error {
	m.mu.Lock()
	m.header.Truncated = true
	m.mu.Unlock()
	if werr := m.EndHeader(); werr != nil {
		return werr
	}
	for _, p := range [][]byte{field, line} {
		if _, werr := m.Write(p); werr != nil {
			return werr
		}
	}
	return m.copyLines(lines, err)
}

// copyLines writes the rest, unless err says that there is none.
func (m *Message) copyLines(lines *lineReader, err error) error {
	out := make([]byte, 0, 2*smallMessage) // many lines a write
	for err == nil {
		var line []byte
		if lines.decided && !lines.convert {
			line, err = lines.chunk()
		} else {
			line, err = lines.next()
		}
		out = append(out, line...)
		if len(out) >= smallMessage {
			if _, werr := m.Write(out); werr != nil {
				return werr
			}
			out = out[:0]
		}
	}
	if _, werr := m.Write(out); werr != nil {
		return werr
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return fmt.Errorf("read message: %w", err)
}

// lineReader gives lines, or pieces of overlong ones, with CRLF for LF where
// the file's own first line end is LF.
type lineReader struct {
	r       *bufio.Reader
	decided bool
	convert bool
	amid    bool // the piece continues a line
	partial bool
	lastCR  bool // the piece before ended in CR
	buf     []byte
}

// next returns a line with its end, valid until the next call. A piece of an overlong line
// has no end; amid says that a piece is not its line's first.
func (l *lineReader) next() ([]byte, error) {
	l.amid = l.partial
	line, err := l.r.ReadSlice('\n')
	l.partial = errors.Is(err, bufio.ErrBufferFull)
	if l.partial {
		err = nil
	}
	n := len(line)
	if n == 0 || line[n-1] != '\n' {
		l.lastCR = n > 0 && line[n-1] == '\r'
		return line, err
	}
	crlf := n > 1 && line[n-2] == '\r' || n == 1 && l.amid && l.lastCR
	if !l.decided {
		l.decided, l.convert = true, !crlf
	}
	if crlf || !l.convert {
		return line, err
	}
	l.buf = append(append(l.buf[:0], line[:n-1]...), '\r', '\n')
	return l.buf, err
}

// chunk returns what is buffered, as it is.
func (l *lineReader) chunk() ([]byte, error) {
	if _, err := l.r.Peek(1); err != nil {
		return nil, err
	}
	b, err := l.r.Peek(l.r.Buffered())
	if err != nil {
		return nil, err
	}
	_, err = l.r.Discard(len(b)) // b stays valid until the next read
	return b, err
}

// splitField splits a field at its colon, without its last line end, and reports
// whether it is one: a name of printable ASCII, perhaps blanks, a colon.
func splitField(raw []byte) (name, value []byte, ok bool) {
	colon := bytes.IndexByte(raw, ':')
	if colon < 0 {
		return nil, nil, false
	}
	name = bytes.TrimRight(raw[:colon], " \t")
	if len(name) == 0 {
		return nil, nil, false
	}
	for _, c := range name {
		if c <= ' ' || c > '~' {
			return nil, nil, false
		}
	}
	value = bytes.TrimSuffix(bytes.TrimSuffix(raw[colon+1:], []byte("\n")), []byte("\r"))
	return name, value, true
}

type countingReader struct {
	r io.Reader
	n int64
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}
