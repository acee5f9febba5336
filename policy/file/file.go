// Package file reads policies from a YAML file and tells every mistake at once,
// with file, line, column and remedy.
//
// The file has one key, policies, a list. Each policy has match (see
// policy.ParseMatch), direction (inbound unless it says outbound) and the fields of
// policy.Fields under their keys. What a policy doesn't set comes from a more general one;
// a key of a map set to null removes an inherited one.
//
// Invariants:
//   - A file with a mistake gives no snapshot.
//   - Every key of the file is read or told.
//   - The file's size, nesting and the number of problems are bounded.
package file

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"sluice/internal/envelope"
	"sluice/internal/strictyaml"
	"sluice/policy"
)

// Options are what reading a file depends on.
type Options struct {
	// Delimiters part a local part from its extension (policy.recipient_delimiter).
	Delimiters string
	// Generation numbers the snapshot.
	Generation int64
	// Built has the names of the scanners and capabilities that are there
	// ("attachment", "bayes", "sender", policy.NeedsStore, policy.NeedsRedirect):
	// without the store the actions quarantine and redirect are mistakes.
	Built map[string]bool
	// Optional: an absent file is an empty one.
	Optional bool
	// Notice, unless nil, is told of each field that is set and has no effect in this
	// build, where it stands first.
	Notice func(strictyaml.Problem)
}

// maxPolicies bounds the number of policies in one file.
const maxPolicies = 2_000_000

// Load reads the file. The snapshot is nil if there are problems, which are
// sorted by place.
func Load(path string, opts Options) (*policy.Snapshot, strictyaml.Problems) {
	data, err := strictyaml.ReadFile(path)
	if err != nil && !(opts.Optional && errors.Is(err, fs.ErrNotExist)) {
		p := strictyaml.Problem{File: path, Message: "can't be read: " + strings.TrimPrefix(err.Error(), "open "+path+": ")}
		if errors.Is(err, fs.ErrNotExist) {
			p.Message, p.Remedy = "no such file", "make it, or mend policy.file in the configuration"
		}
		return nil, strictyaml.Problems{p}
	}
	return Parse(path, data, opts)
}

// Parse reads data, the content of the named file, as Load does.
func Parse(name string, data []byte, opts Options) (*policy.Snapshot, strictyaml.Problems) {
	return parse(name, data, opts, chunkBytes)
}

func parse(name string, data []byte, opts Options, size int) (*policy.Snapshot, strictyaml.Problems) {
	l := places{name: name, chunks: split(data, size)}
	var (
		problems strictyaml.Problems
		entries  []policy.Entry
		items    []reading // beside the entries
		count    int
	)
	for n := range l.chunks {
		c := &l.chunks[n]
		c.first = count
		var content struct {
			Policies []item `yaml:"policies"`
		}
		doc, found := c.decode(name, &content)
		l.at, l.doc = n, doc
		for _, p := range found {
			problems = append(problems, c.placed(p))
		}
		if count += len(content.Policies); count > maxPolicies {
			return nil, append(problems, l.problem(c.first, fmt.Sprintf("more than %d policies", maxPolicies), "keep them in PostgreSQL"))
		}
		for i := range content.Policies {
			it := &content.Policies[i]
			for _, m := range it.late {
				p := doc.KeyProblem(m.message, m.remedy, append([]any{"policies", i}, m.path...)...)
				problems = append(problems, c.placed(p))
			}
			if it.none {
				continue
			}
			it.index = c.first + i
			if !it.undirected { // else it isn't known among whose policies it stands
				it.entry.Match = it.match
			}
			entries, items = append(entries, it.entry), append(items, it.reading)
		}
		if len(problems) >= strictyaml.MaxProblems {
			problems.Sort()
			return nil, problems[:strictyaml.MaxProblems]
		}
	}
	snapshot, problems := l.check(entries, items, problems, opts)
	if len(problems) > 0 {
		problems.Sort()
		return nil, problems
	}
	return snapshot, nil
}

// item is one policy as it stands in the file. Its entry has no match yet.
type item struct {
	entry policy.Entry
	none  bool // not a policy at all
	reading
	late []late
}

// late is a mistake at a key, whose place only the document knows.
type late struct {
	path            []any
	message, remedy string
}

// raw keeps a node for later.
type raw struct{ strictyaml.Node }

func (r *raw) UnmarshalNode(n strictyaml.Node) { r.Node = n }

// told reports whether the node was a mistake already.
func (r raw) told() bool { return r == raw{} }

// UnmarshalNode reads one policy.
func (it *item) UnmarshalNode(n strictyaml.Node) {
	if n.Kind() != strictyaml.Map {
		it.none = true
		n.Fail("wants a policy, but this is "+n.Kind().String(), `write - match: "@example.org" and its fields below`)
		return
	}
	var fields map[string]raw
	n.Decode(&fields)
	for key, r := range fields {
		switch {
		case key == "match":
			it.readMatch(r)
		case key == "direction":
			it.readDirection(r)
		default:
			it.readField(key, r)
		}
	}
	if _, ok := fields["match"]; !ok {
		it.tell("this policy has no match, so that it applies to nobody", `write match: "@example.org"`)
	}
}

func (it *item) tell(message, remedy string, path ...any) {
	it.late = append(it.late, late{path, message, remedy})
}

func (it *item) readMatch(n raw) {
	switch {
	case n.told():
		return
	case n.Kind() != strictyaml.Text:
		n.Fail("wants an address, but this is "+n.Kind().String(), `write match: "@example.org"`)
		return
	}
	m, err := policy.ParseMatch(n.Text())
	if err != nil {
		message, remedy, _ := strings.Cut(err.Error(), ": ")
		n.Fail(message, remedy)
		return
	}
	it.match = m
}

func (it *item) readDirection(n raw) {
	if n.told() {
		it.undirected = true
		return
	}
	switch text := n.Text(); text {
	case envelope.Inbound.String():
	case envelope.Outbound.String():
		it.entry.Direction = envelope.Outbound
	default:
		it.undirected = true
		n.Fail(fmt.Sprintf("unknown direction %q", text), "inbound or outbound")
	}
}

// readField reads a field. What could be read of a list or a map is kept although
// something could not: there may be more mistakes in it.
func (it *item) readField(key string, n raw) {
	f, ok := policy.Lookup(key)
	if !ok {
		it.tell("unknown key", unknownRemedy(key), key)
		return
	}
	if n.told() {
		it.scores = it.scores || f.Type == policy.TypeScore
		return
	}
	v, ok := it.value(n.Node, f)
	if !ok && f.Type == policy.TypeScore {
		it.scores = true
	}
	if !ok && !hasParts(f.Type) {
		return
	}
	if err := it.entry.Policy.Set(key, v); err != nil {
		n.Fail(err.Error(), "this is a fault of the program")
	}
}

// hasParts reports whether values of the type are lists or maps.
func hasParts(t policy.Type) bool {
	switch t {
	case policy.TypeClasses, policy.TypeGlobs, policy.TypeMedia, policy.TypeSenders, policy.TypeSymbols:
		return true
	}
	return false
}

func unknownRemedy(key string) string {
	known := []string{"match", "direction"}
	for _, f := range policy.Fields() {
		known = append(known, f.Key)
	}
	if near := strictyaml.Suggest(key, known); near != "" {
		return "did you mean " + near + "?"
	}
	return "known here: " + strings.Join(known, ", ")
}
