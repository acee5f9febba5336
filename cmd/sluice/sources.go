package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// source is a file with one or more messages.
type source struct {
	name string
	open func() (io.ReadCloser, error)
	err  error // why it can't be opened
}

// errNotMessage: what a file holds is no message.
var errNotMessage = errors.New("this is not a message: there is no header field")

// sources lists the files that the arguments name: files, folders with all below
// them, - for standard input.
func sources(args []string, stdin io.Reader) []source {
	var all []source
	for _, arg := range args {
		if arg == "-" {
			all = append(all, source{name: "-", open: func() (io.ReadCloser, error) { return io.NopCloser(stdin), nil }})
			continue
		}
		info, err := os.Stat(arg)
		if err != nil || !info.IsDir() {
			all = append(all, fileSource(arg)) // opening it tells the error
			continue
		}
		all = append(all, folder(arg)...)
	}
	return all
}

func fileSource(name string) source {
	return source{name: name, open: func() (io.ReadCloser, error) { return os.Open(name) }}
}

// folder lists the regular files below a folder in lexical order; of a Maildir only
// those that are messages.
func folder(dir string) []source {
	var all []source
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			all = append(all, source{name: path, err: err})
		case e.Type().IsRegular() && (!inMaildir(filepath.Dir(path)) || isMaildirMessage(path)):
			all = append(all, fileSource(path))
		}
		return nil
	})
	if err != nil {
		all = append(all, source{name: dir, err: err})
	}
	return all
}

// inMaildir reports whether a folder is a Maildir or one of its three parts.
func inMaildir(dir string) bool {
	for _, d := range []string{dir, filepath.Dir(dir)} {
		parts := 0
		for _, part := range []string{"cur", "new", "tmp"} {
			if st, err := os.Stat(filepath.Join(d, part)); err == nil && st.IsDir() {
				parts++
			}
		}
		if parts == 3 {
			return true
		}
	}
	return false
}

func isMaildirMessage(path string) bool {
	part := filepath.Base(filepath.Dir(path))
	return part == "cur" || part == "new"
}

// splitter cuts a file into messages: an mbox at its From_ lines, anything else
// not at all.
type splitter struct {
	r       *bufio.Reader
	mbox    bool
	count   int
	current *mboxMessage
}

// fromLine is the line that begins a message in an mbox: it ends in a date. Text that
// only begins with From has none.
var fromLine = regexp.MustCompile(`^From \S.* \d{1,2}:\d\d(:\d\d)?( .*)?\r?\n?$`)

func split(r io.Reader) *splitter {
	s := &splitter{r: bufio.NewReaderSize(r, 64<<10)}
	start, _ := s.r.Peek(5) // a shorter file is no mbox
	s.mbox = bytes.Equal(start, []byte("From "))
	return s
}

// next returns a reader of the next message, which must be read to its end before the
// next call.
func (s *splitter) next() (io.Reader, bool) {
	if !s.mbox {
		s.count++
		return s.r, s.count == 1
	}
	if s.count > 0 && !s.current.another {
		return nil, false
	}
	s.count++
	if s.count == 1 {
		_, _ = s.r.ReadSlice('\n') // the first From_ line; its error comes again
	}
	s.current = &mboxMessage{r: s.r}
	return s.current, true
}

// name is the name of message n, which has been read: a number is added if
// there are several.
func (s *splitter) name(file string, n int) string {
	if s.mbox && (n > 1 || s.current.another) {
		return fmt.Sprintf("%s#%d", file, n)
	}
	return file
}

// mboxMessage reads one message of an mbox, up to the next From_ line after an
// empty line. ">From" at a line's start loses its ">" (mboxrd).
type mboxMessage struct {
	r       *bufio.Reader
	out     []byte // what is to be returned before more is read
	blank   []byte // an empty line that may belong to the mbox
	inLine  bool   // amid a line longer than the buffer
	another bool   // a From_ line was met
	err     error
}

func (m *mboxMessage) Read(p []byte) (int, error) {
	for len(m.out) == 0 {
		if m.err != nil {
			return 0, m.err
		}
		m.fill()
	}
	n := copy(p, m.out)
	m.out = m.out[n:]
	return n, nil
}

func (m *mboxMessage) fill() {
	line, err := m.r.ReadSlice('\n')
	start := !m.inLine
	m.inLine = errors.Is(err, bufio.ErrBufferFull)
	if err != nil && !m.inLine {
		m.err = err
	}
	if len(line) == 0 && errors.Is(err, io.EOF) {
		m.blank = nil // the mbox's last line
		return
	}
	if start && m.blank != nil && fromLine.Match(line) {
		m.another, m.err = true, io.EOF
		return
	}
	m.out = append(m.out[:0:0], m.blank...)
	m.blank = nil
	if start && (string(line) == "\n" || string(line) == "\r\n") {
		m.blank = bytes.Clone(line)
		return
	}
	if start && bytes.HasPrefix(line, []byte(">")) && bytes.HasPrefix(bytes.TrimLeft(line, ">"), []byte("From ")) {
		line = line[1:]
	}
	m.out = append(m.out, line...)
}

// peekLine returns the start of r up to the first line's end, and all of r.
func peekLine(r io.Reader) (string, io.Reader) {
	b := bufio.NewReaderSize(r, 4096)
	for n := 256; ; n *= 2 {
		head, err := b.Peek(min(n, b.Size()))
		if i := bytes.IndexByte(head, '\n'); i >= 0 {
			return string(head[:i+1]), b
		}
		if err != nil || n >= b.Size() {
			return strings.Clone(string(head)), b
		}
	}
}
