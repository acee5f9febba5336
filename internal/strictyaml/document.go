package strictyaml

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// MaxBytes bounds the size of a file.
const MaxBytes = 64 << 20

const maxDepth = 100

// Document is a file that has been read: it knows where each key stands. Read-only,
// safe for concurrent use. The zero value is an empty file without a name.
type Document struct {
	file string
	root ast.Node // nil if the file is empty
}

// ReadFile reads a file of at most MaxBytes.
func ReadFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close() // only read from: nothing to lose
	data, err := io.ReadAll(io.LimitReader(f, MaxBytes+1))
	if err == nil && len(data) > MaxBytes {
		err = fmt.Errorf("%s: larger than %s", name, Size(MaxBytes))
	}
	return data, err
}

// Decode reads data, the content of the named file, into the struct or map that
// target points to. Keys that aren't in the file leave their fields as they are.
// The document is never nil; the problems are sorted by place.
//
// A struct's fields bear the tag `yaml:"key"`, embedded structs are part of the
// outer one, fields without a tag aren't read. A field may be a string, bool, int, int64, uint16,
// float64, time.Duration, Size, an encoding.TextUnmarshaler (which is given a
// scalar's text), an Unmarshaler, a struct, a slice, a map with string keys, or a
// pointer to one of these. A pointer is nil for null; null for a struct is an
// empty section; elsewhere null is a problem. Lists and maps in the file replace what the target
// held.
func Decode(file string, data []byte, target any) (*Document, Problems) {
	doc := &Document{file: file}
	problems := doc.parse(data)
	if problems == nil {
		problems = doc.decode(target)
	}
	problems.Sort()
	return doc, problems
}

// parse fills doc.root. A mistake in the syntax is the only problem that is then told.
func (doc *Document) parse(data []byte) (problems Problems) {
	fail := func(line, column int, message, remedy string) Problems {
		return Problems{{File: doc.file, Line: line, Column: column, Message: message, Remedy: remedy}}
	}
	if len(data) > MaxBytes {
		return fail(0, 0, "the file is larger than "+Size(MaxBytes).String(), "")
	}
	if line, column, bad := findBadByte(data); bad != "" {
		return fail(line, column, bad, "save the file as UTF-8 text")
	}
	// The library is not written for hostile input; a mistake of its own must not end a
	// daemon that was asked to reload.
	defer func() {
		if r := recover(); r != nil {
			doc.root = nil
			problems = fail(0, 0, "the file can't be read as YAML", "look for stray signs such as { } [ ] & * ! outside of quotes")
		}
	}()
	tokens := lexer.Tokenize(string(data))
	if at := tooDeep(tokens); at != nil {
		return fail(at.Line, at.Column, fmt.Sprintf("nested more than %d levels deep", maxDepth), "")
	}
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		line, column, message := 0, 0, "syntax error"
		if ye := yaml.Error(nil); errors.As(err, &ye) {
			message = "syntax error: " + ye.GetMessage()
			if tk := ye.GetToken(); tk != nil && tk.Position != nil {
				line, column = tk.Position.Line, tk.Position.Column
			}
		}
		return fail(line, column, message, remedyFor(message))
	}
	var bodies []ast.Node
	for _, d := range file.Docs {
		if dir, ok := d.Body.(*ast.DirectiveNode); ok {
			line, column := position(dir)
			return fail(line, column, "directives (%) aren't read", "remove the line")
		}
		if d.Body != nil {
			bodies = append(bodies, d.Body)
		}
	}
	switch {
	case len(bodies) > 1:
		line, column := position(bodies[1])
		return fail(line, column, "a second document begins here", "keep one document in a file: remove the line ---")
	case len(bodies) == 1:
		doc.root = bodies[0]
	}
	return nil
}

func remedyFor(message string) string {
	switch {
	case strings.Contains(message, "reserved character"):
		return `put text that begins with such a sign in quotes: "@example.org"`
	case strings.Contains(message, "tab"):
		return "indent with blanks, not with tabs"
	case strings.Contains(message, "directive"):
		return "put text that begins with % in quotes"
	}
	return "look at the indentation, quotes and brackets here and in the line above"
}

// findBadByte looks for what can't be in a text file.
func findBadByte(data []byte) (line, column int, message string) {
	line, column = 1, 1
	for i := 0; i < len(data); {
		r, n := utf8.DecodeRune(data[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			return line, column, "this is not UTF-8"
		case r < 0x20 && r != '\t' && r != '\n' && r != '\r' || r == 0x7f:
			return line, column, fmt.Sprintf("a control character (0x%02x) stands here", r)
		case r == '\n':
			line, column = line+1, 0
		}
		column++
		i += n
	}
	return 0, 0, ""
}

// tooDeep finds the token at which the nesting goes past maxDepth. The parser is
// recursive, so it must be found before.
func tooDeep(tokens token.Tokens) *token.Position {
	flow, odd := 0, 0
	for _, tk := range tokens {
		switch tk.Type {
		case token.MappingStartType, token.SequenceStartType:
			flow++
		case token.MappingEndType, token.SequenceEndType:
			flow = max(0, flow-1)
		case token.TagType, token.AnchorType, token.AliasType, token.MappingKeyType:
			odd++ // each is a problem anyhow and may nest without brackets
		case token.SequenceEntryType:
			if tk.Position.Column > 2*maxDepth {
				return tk.Position
			}
		case token.MappingValueType:
			// A block mapping's depth is bounded by the column of its keys.
			if flow == 0 && tk.Prev != nil && tk.Prev.Position.Column > 2*maxDepth {
				return tk.Prev.Position
			}
		}
		if flow > maxDepth || odd > MaxProblems {
			return tk.Position
		}
	}
	return nil
}

// File returns the name that was given to Decode.
func (doc *Document) File() string { return doc.file }

// Has reports whether the file sets the key at path: strings are keys, ints are
// indexes of lists.
func (doc *Document) Has(path ...any) bool {
	_, _, depth := doc.find(path)
	return depth == len(path)
}

// Position returns line and column of the value at path; where it is not in the
// file, those of the nearest section that is; 0, 0 in an empty file.
func (doc *Document) Position(path ...any) (line, column int) {
	key, value, _ := doc.find(path)
	if value == nil {
		return 0, 0
	}
	if _, null := value.(*ast.NullNode); null && key != nil {
		value = key // a value that isn't written has no place
	}
	return position(value)
}

// Problem makes a problem that points at the value at path.
func (doc *Document) Problem(message, remedy string, path ...any) Problem {
	line, column := doc.Position(path...)
	return Problem{File: doc.file, Line: line, Column: column, Key: keyPath(path), Message: message, Remedy: remedy}
}

// KeyProblem makes a problem that points at the key at path, not at its value.
func (doc *Document) KeyProblem(message, remedy string, path ...any) Problem {
	p := doc.Problem(message, remedy, path...)
	if key, _, depth := doc.find(path); key != nil && depth == len(path) {
		p.Line, p.Column = position(key)
	}
	return p
}

func keyPath(path []any) string {
	s := ""
	for _, e := range path {
		switch e := e.(type) {
		case int:
			s += fmt.Sprintf("[%d]", e)
		case string:
			s = joinKey(s, e)
		}
	}
	return s
}

func joinKey(path, key string) string {
	if strings.ContainsAny(key, ".[]\" ") || key == "" {
		key = quote(key)
	}
	if path == "" {
		return key
	}
	return path + "." + key
}

// find walks down the path as far as the file goes; depth says how far.
func (doc *Document) find(path []any) (key, value ast.Node, depth int) {
	value = doc.root
	for i, e := range path {
		var k, v ast.Node
		switch e := e.(type) {
		case string:
			for _, mv := range mapping(value) {
				if text, ok := keyText(mv.Key); ok && text == e {
					k, v = mv.Key, mv.Value
					break
				}
			}
		case int:
			if s, ok := value.(*ast.SequenceNode); ok && e >= 0 && e < len(s.Values) {
				k, v = s.Values[e], s.Values[e]
			}
		}
		if v == nil {
			return key, value, i
		}
		key, value = k, v
	}
	return key, value, len(path)
}

// mapping returns the pairs of a map, nil if n is none.
func mapping(n ast.Node) []*ast.MappingValueNode {
	switch n := n.(type) {
	case *ast.MappingNode:
		return n.Values
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{n}
	}
	return nil
}

// keyText returns a plain key's text.
func keyText(k ast.MapKeyNode) (string, bool) {
	switch k := k.(type) {
	case *ast.StringNode:
		return k.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.NullNode, *ast.InfinityNode, *ast.NanNode:
		return k.GetToken().Value, true
	}
	return "", false
}

// position returns where a node begins. A block map begins at its first key, not at that
// key's colon, which the library names.
func position(n ast.Node) (line, column int) {
	switch m := n.(type) {
	case *ast.MappingNode:
		if !m.IsFlowStyle && len(m.Values) > 0 {
			return position(m.Values[0].Key)
		}
	case *ast.MappingValueNode:
		return position(m.Key)
	}
	tk := n.GetToken()
	if tk == nil || tk.Position == nil {
		return 0, 0
	}
	return tk.Position.Line, tk.Position.Column
}
