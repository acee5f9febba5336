package file

import (
	"bytes"
	"fmt"
	"sort"
	"strings"

	"sluice/internal/strictyaml"
)

// chunkBytes is the size from which on a file is read in pieces. A syntax tree
// takes about a hundred times the memory of its text; a million policies would
// need gigabytes at once.
const chunkBytes = 1 << 20

// head begins each piece, so that it is a whole file by itself.
const head = "policies:\n"

// chunk is a piece of a file that can be read alone.
type chunk struct {
	data []byte // of the file
	// line is the number of lines before data, first the index of its first policy.
	line, first int
	// part: data needs the head put before it.
	part bool
}

// split parts a file of the plain form
//
//	policies:
//	  - match: …
//
// in front of list items, about every size bytes; the first piece has what stands
// before the list. A file of another form is one
// piece. A line that begins as an item can't be the middle of anything in valid
// YAML (it would have to be indented further), so what a piece is cut from shows
// as a mistake in one of them, never as other policies.
func split(data []byte, size int) []chunk {
	whole := []chunk{{data: data}}
	if len(data) <= size {
		return whole
	}
	var item []byte // how an item's line begins
	headed, first := false, 0
	for rest := data; len(rest) > 0 && item == nil; {
		line, after, _ := bytes.Cut(rest, []byte("\n"))
		trimmed := bytes.TrimLeft(line, " ")
		switch {
		case len(bytes.TrimSpace(line)) == 0 || trimmed[0] == '#':
		case !headed:
			if string(bytes.TrimRight(line, " \r")) != strings.TrimSpace(head) {
				return whole
			}
			headed = true
		case bytes.HasPrefix(trimmed, []byte("- ")):
			item, first = line[:len(line)-len(trimmed)+2], len(data)-len(rest)
		default:
			return whole
		}
		rest = after
	}
	if item == nil {
		return whole
	}
	var chunks []chunk
	mark := append([]byte("\n"), item...)
	for start, lines := 0, 0; start < len(data); {
		end := len(data)
		if from := max(start+size, first); from < end {
			if n := bytes.Index(data[from:], mark); n >= 0 {
				end = from + n + 1
			}
		}
		c := chunk{data: data[start:end], line: lines, part: start > 0}
		chunks = append(chunks, c)
		lines += bytes.Count(c.data, []byte("\n"))
		start = end
	}
	return chunks
}

// decode reads the piece; places are those within it.
func (c *chunk) decode(name string, target any) (*strictyaml.Document, strictyaml.Problems) {
	data := c.data
	if c.part {
		data = append([]byte(head), data...)
	}
	return strictyaml.Decode(name, data, target)
}

// placed turns a place within the piece into one in the file.
func (c *chunk) placed(p strictyaml.Problem) strictyaml.Problem {
	if !c.part {
		return p
	}
	if p.Line > 1 {
		p.Line += c.line - 1
	}
	var n int
	if _, err := fmt.Sscanf(p.Key, "policies[%d]", &n); err == nil {
		_, rest, _ := strings.Cut(p.Key, "]")
		p.Key = fmt.Sprintf("policies[%d]%s", n+c.first, rest)
	}
	return p
}

// places finds where policies stand. Pieces are read anew for it, since keeping
// their trees is what pieces are to avoid.
type places struct {
	name   string
	chunks []chunk
	at     int // the piece that doc is of
	doc    *strictyaml.Document
}

// document returns the piece that has the policy with that index, and its tree.
func (l *places) document(policy int) (*chunk, *strictyaml.Document) {
	n := sort.Search(len(l.chunks), func(i int) bool { return l.chunks[i].first > policy }) - 1
	if l.doc == nil || l.at != n {
		var content struct {
			Policies []raw `yaml:"policies"`
		}
		l.doc, _ = l.chunks[n].decode(l.name, &content)
		l.at = n
	}
	return &l.chunks[n], l.doc
}

// problem points at a value of a policy, keyProblem at the key.
func (l *places) problem(policy int, message, remedy string, path ...any) strictyaml.Problem {
	c, doc := l.document(policy)
	return c.placed(doc.Problem(message, remedy, append([]any{"policies", policy - c.first}, path...)...))
}

func (l *places) keyProblem(policy int, message, remedy string, path ...any) strictyaml.Problem {
	c, doc := l.document(policy)
	return c.placed(doc.KeyProblem(message, remedy, append([]any{"policies", policy - c.first}, path...)...))
}
