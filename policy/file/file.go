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
		index    []int            // of the entries' policies in the file
		failed   = map[int]bool{} // policies of which something could not be read
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
			if it.failed {
				failed[c.first+i] = true
			}
			if it.matched {
				entries, index = append(entries, it.entry), append(index, c.first+i)
			}
		}
		if len(problems) >= strictyaml.MaxProblems {
			problems.Sort()
			return nil, problems[:strictyaml.MaxProblems]
		}
	}
	snapshot, found := policy.Check(entries, policy.SnapshotOptions{Delimiters: opts.Delimiters, Generation: opts.Generation}, opts.Built)
	for _, p := range found {
		i := index[p.Entry]
		if p.Thresholds && failed[i] {
			continue // perhaps only because a value could not be read
		}
		if p.Advice {
			if opts.Notice != nil {
				opts.Notice(l.problem(i, p.Message, p.Remedy, p.Path...))
			}
			continue
		}
		if problems = append(problems, l.problem(i, p.Message, p.Remedy, p.Path...)); len(problems) >= strictyaml.MaxProblems {
			break
		}
	}
	if len(problems) > 0 {
		problems.Sort()
		return nil, problems
	}
	if opts.Notice != nil {
		told := map[string]bool{}
		for n := range entries {
			for f := range entries[n].Policy.All() {
				if why := f.NoEffect(opts.Built); why != "" && !told[f.Key] {
					told[f.Key] = true
					opts.Notice(l.keyProblem(index[n], why, "", f.Key))
				}
			}
		}
	}
	return snapshot, nil
}

// item is one policy as it stands in the file.
type item struct {
	entry   policy.Entry
	matched bool // match could be read
	failed  bool // something could not
	late    []late
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
		it.failed = true
		n.Fail("wants a policy, but this is "+n.Kind().String(), `write - match: "@example.org" and its fields below`)
		return
	}
	var fields map[string]raw
	it.failed = !n.Decode(&fields)
	for key, r := range fields {
		switch {
		case r.told():
		case key == "match":
			it.match(r.Node)
		case key == "direction":
			it.direction(r.Node)
		default:
			it.field(key, r.Node)
		}
	}
	if _, ok := fields["match"]; !ok {
		it.tell("this policy has no match, so that it applies to nobody", `write match: "@example.org"`)
	}
}

func (it *item) tell(message, remedy string, path ...any) {
	it.failed = true
	it.late = append(it.late, late{path, message, remedy})
}

func (it *item) match(n strictyaml.Node) {
	if n.Kind() != strictyaml.Text {
		it.failed = true
		n.Fail("wants an address, but this is "+n.Kind().String(), `write match: "@example.org"`)
		return
	}
	m, err := policy.ParseMatch(n.Text())
	if err != nil {
		it.failed = true
		message, remedy, _ := strings.Cut(err.Error(), ": ")
		n.Fail(message, remedy)
		return
	}
	it.entry.Match, it.matched = m, true
}

func (it *item) direction(n strictyaml.Node) {
	switch text := n.Text(); text {
	case envelope.Inbound.String():
	case envelope.Outbound.String():
		it.entry.Direction = envelope.Outbound
	default:
		it.failed = true
		n.Fail(fmt.Sprintf("unknown direction %q", text), "inbound or outbound")
	}
}

func (it *item) field(key string, n strictyaml.Node) {
	f, ok := policy.Lookup(key)
	if !ok {
		it.tell("unknown key", unknownRemedy(key), key)
		return
	}
	v, ok := it.value(n, f)
	if !ok {
		it.failed = true
		return
	}
	if err := it.entry.Policy.Set(key, v); err != nil {
		it.failed = true
		n.Fail(err.Error(), "this is a fault of the program")
	}
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
