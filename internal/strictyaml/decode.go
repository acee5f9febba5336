package strictyaml

import (
	"encoding"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
)

// Unmarshaler reads itself from a node, for values that may have more than one
// form. What is wrong is told with Node.Fail.
type Unmarshaler interface {
	UnmarshalNode(n Node)
}

// Kind is the sort of a node.
type Kind uint8

// The kinds of nodes.
const (
	Null Kind = iota
	Bool
	Number
	Text
	List
	Map
)

var kindNames = [...]string{"nothing (null)", "true or false", "a number", "text", "a list", "a map (key: value)"}

// String returns words for people: "a number".
func (k Kind) String() string { return kindNames[k] }

// Node is a value in a file, given to an Unmarshaler.
type Node struct {
	d    *decoder
	n    ast.Node
	path string
}

// Kind returns the sort of the node.
func (n Node) Kind() Kind { return kindOf(n.n) }

// Text returns a scalar's text, "" for lists and maps.
func (n Node) Text() string { return scalarText(n.n) }

// Decode reads the node into what target points to, as the function Decode does.
// It reports whether that made no problem.
func (n Node) Decode(target any) bool {
	before := n.d.count
	n.d.value(n.n, reflect.ValueOf(target).Elem(), n.path)
	return n.d.count == before
}

// Fail says what is wrong with the node and how to mend it.
func (n Node) Fail(message, remedy string) { n.d.fail(n.n, n.path, message, remedy) }

type decoder struct {
	file     string
	problems Problems
	count    int
	fields   map[reflect.Type]*structFields
}

type structFields struct {
	names []string
	index map[string][]int
}

func (doc *Document) decode(target any) Problems {
	d := &decoder{file: doc.file, fields: map[reflect.Type]*structFields{}}
	if doc.root != nil {
		d.value(doc.root, reflect.ValueOf(target).Elem(), "")
	}
	return d.problems
}

func (d *decoder) fail(n ast.Node, path, message, remedy string) {
	d.count++
	if d.count > MaxProblems {
		return
	}
	p := Problem{File: d.file, Key: path, Message: message, Remedy: remedy}
	p.Line, p.Column = position(n)
	if d.count == MaxProblems {
		p.Message, p.Remedy, p.Key = "more mistakes follow", "mend those above first", ""
	}
	d.problems = append(d.problems, p)
}

func (d *decoder) wrongType(n ast.Node, path, want, remedy string) {
	d.fail(n, path, fmt.Sprintf("wants %s, but this is %s", want, kindOf(n)), remedy)
}

var (
	durationType    = reflect.TypeFor[time.Duration]()
	unmarshalerType = reflect.TypeFor[Unmarshaler]()
	textType        = reflect.TypeFor[encoding.TextUnmarshaler]()
)

// value reads n into v, which can be set.
func (d *decoder) value(n ast.Node, v reflect.Value, path string) {
	switch n.(type) {
	case *ast.AliasNode, *ast.AnchorNode:
		d.fail(n, path, "anchors and aliases (& and *) aren't read", "put text that begins with such a sign in quotes")
		return
	case *ast.TagNode:
		d.fail(n, path, "tags (!) aren't read", "put text that begins with ! in quotes")
		return
	}
	if v.Kind() == reflect.Pointer {
		if kindOf(n) == Null {
			v.SetZero()
			return
		}
		fresh := reflect.New(v.Type().Elem())
		before := d.count
		d.value(n, fresh.Elem(), path)
		if d.count == before || v.IsNil() {
			v.Set(fresh)
		}
		return
	}
	switch p := reflect.PointerTo(v.Type()); {
	case p.Implements(unmarshalerType):
		v.Addr().Interface().(Unmarshaler).UnmarshalNode(Node{d, n, path})
	case p.Implements(textType):
		d.text(n, v, path)
	case v.Type() == durationType:
		if text, ok := d.scalar(n, path, "a duration such as 90s, 4h or 30d"); ok {
			if dur, err := ParseDuration(text); err != nil {
				d.failErr(n, path, err)
			} else {
				v.SetInt(int64(dur))
			}
		}
	default:
		d.plain(n, v, path)
	}
}

// plain reads values of Go's own kinds.
func (d *decoder) plain(n ast.Node, v reflect.Value, path string) {
	switch v.Kind() {
	case reflect.Struct:
		d.structure(n, v, path)
	case reflect.Map:
		d.mapOf(n, v, path)
	case reflect.Slice:
		d.list(n, v, path)
	case reflect.String:
		switch k := kindOf(n); k {
		case Text:
			v.SetString(scalarText(n))
		case Number, Bool:
			d.wrongType(n, path, "text", "put it in quotes: "+quote(scalarText(n)))
		default:
			d.wrongType(n, path, "text", quoteColon(n))
		}
	case reflect.Bool:
		if b, ok := n.(*ast.BoolNode); ok {
			v.SetBool(b.Value)
		} else {
			d.wrongType(n, path, "true or false", "write true or false, without quotes")
		}
	case reflect.Int, reflect.Int64, reflect.Int32, reflect.Uint16:
		d.integer(n, v, path)
	case reflect.Float64:
		f, err := strconv.ParseFloat(scalarText(n), 64)
		if kindOf(n) != Number {
			d.wrongType(n, path, "a number", "")
		} else if err != nil || math.IsInf(f, 0) || math.IsNaN(f) {
			d.fail(n, path, quote(scalarText(n))+" is not a number that can be used here", "write it as 5 or -0.25")
		} else {
			v.SetFloat(f)
		}
	default:
		d.fail(n, path, "can't be read into "+v.Type().String(), "this is a fault of the program")
	}
}

func (d *decoder) integer(n ast.Node, v reflect.Value, path string) {
	if kindOf(n) != Number {
		d.wrongType(n, path, "a whole number", "")
		return
	}
	text := scalarText(n)
	i, err := strconv.ParseInt(text, 10, 64)
	switch {
	case err != nil || len(text) > 1 && text[0] == '0':
		d.fail(n, path, quote(text)+" is not a whole number", "write it in plain digits")
	case v.CanInt() && !v.OverflowInt(i):
		v.SetInt(i)
	case v.CanUint() && i >= 0 && !v.OverflowUint(uint64(i)):
		v.SetUint(uint64(i))
	default:
		d.fail(n, path, text+" is out of range", "")
	}
}

// scalar returns the text of a value that has to be one.
func (d *decoder) scalar(n ast.Node, path, want string) (string, bool) {
	switch kindOf(n) {
	case Text, Number, Bool:
		return scalarText(n), true
	}
	d.wrongType(n, path, want, quoteColon(n))
	return "", false
}

// quoteColon is the remedy for [inet:192.0.2.1:25], which reads as a map inside of
// brackets.
func quoteColon(n ast.Node) string {
	if len(mapping(n)) == 1 {
		return "put text with a colon in it in quotes"
	}
	return ""
}

func (d *decoder) text(n ast.Node, v reflect.Value, path string) {
	text, ok := d.scalar(n, path, "a single value")
	if !ok {
		return
	}
	fresh := reflect.New(v.Type())
	if err := fresh.Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(text)); err != nil {
		d.failErr(n, path, err)
		return
	}
	v.Set(fresh.Elem())
}

func (d *decoder) failErr(n ast.Node, path string, err error) {
	if ve := (*ValueError)(nil); errors.As(err, &ve) {
		d.fail(n, path, ve.Message, ve.Remedy)
		return
	}
	d.fail(n, path, err.Error(), "")
}

func (d *decoder) list(n ast.Node, v reflect.Value, path string) {
	seq, ok := n.(*ast.SequenceNode)
	if !ok {
		remedy := ""
		switch kindOf(n) {
		case Null:
			remedy = "write [] for an empty list, or leave the key out"
		case Text, Number, Bool:
			remedy = "write [" + shown(n) + "]"
		}
		d.wrongType(n, path, "a list", remedy)
		return
	}
	// One that could not be read is its zero value: whoever looks for more mistakes finds
	// the others in their places.
	fresh := reflect.MakeSlice(v.Type(), len(seq.Values), len(seq.Values))
	for i, e := range seq.Values {
		d.value(e, fresh.Index(i), path+"["+strconv.Itoa(i)+"]")
	}
	v.Set(fresh)
}

// pairs goes through a map and tells keys that aren't plain or stand twice.
func (d *decoder) pairs(n ast.Node, path string, each func(key string, mv *ast.MappingValueNode)) {
	seen := map[string]int{}
	for _, mv := range mapping(n) {
		key, ok := keyText(mv.Key)
		if !ok {
			remedy := "put text that begins with one of YAML's signs in quotes"
			if _, merge := mv.Key.(*ast.MergeKeyNode); merge {
				remedy = "write the keys out"
			}
			d.fail(mv.Key, path, "this is not a plain key", remedy)
			continue
		}
		if line, twice := seen[key]; twice {
			d.fail(mv.Key, joinKey(path, key), fmt.Sprintf("stands twice, first in line %d", line), "remove one of the two")
			continue
		}
		seen[key], _ = position(mv.Key)
		each(key, mv)
	}
}

func (d *decoder) structure(n ast.Node, v reflect.Value, path string) {
	switch kindOf(n) {
	case Null:
		return // a section with nothing in it
	case Map:
	default:
		d.wrongType(n, path, "keys with values", "")
		return
	}
	fields := d.fieldsOf(v.Type())
	d.pairs(n, path, func(key string, mv *ast.MappingValueNode) {
		index, ok := fields.index[key]
		if !ok {
			remedy := "known here: " + strings.Join(fields.names, ", ")
			if near := Suggest(key, fields.names); near != "" {
				remedy = "did you mean " + near + "?"
			}
			d.fail(mv.Key, joinKey(path, key), "unknown key", remedy)
			return
		}
		d.value(mv.Value, v.FieldByIndex(index), joinKey(path, key))
	})
}

func (d *decoder) mapOf(n ast.Node, v reflect.Value, path string) {
	if kindOf(n) != Map {
		remedy := ""
		if kindOf(n) == Null {
			remedy = "write {} for an empty one, or leave the key out"
		}
		d.wrongType(n, path, "keys with values", remedy)
		return
	}
	fresh := reflect.MakeMap(v.Type())
	d.pairs(n, path, func(key string, mv *ast.MappingValueNode) {
		e := reflect.New(v.Type().Elem()).Elem()
		d.value(mv.Value, e, joinKey(path, key))
		fresh.SetMapIndex(reflect.ValueOf(key).Convert(v.Type().Key()), e)
	})
	v.Set(fresh)
}

func (d *decoder) fieldsOf(t reflect.Type) *structFields {
	if f := d.fields[t]; f != nil {
		return f
	}
	f := &structFields{index: map[string][]int{}}
	for _, sf := range reflect.VisibleFields(t) {
		if name := sf.Tag.Get("yaml"); name != "" && sf.IsExported() {
			f.names = append(f.names, name)
			f.index[name] = sf.Index
		}
	}
	d.fields[t] = f
	return f
}

func kindOf(n ast.Node) Kind {
	switch n.(type) {
	case *ast.NullNode, nil:
		return Null
	case *ast.BoolNode:
		return Bool
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		return Number
	case *ast.SequenceNode:
		return List
	case *ast.MappingNode, *ast.MappingValueNode:
		return Map
	}
	return Text
}

func scalarText(n ast.Node) string {
	switch n := n.(type) {
	case *ast.StringNode:
		return n.Value
	case *ast.LiteralNode:
		return n.Value.Value
	}
	if k := kindOf(n); k == Bool || k == Number {
		return n.GetToken().Value
	}
	return ""
}

// shown is a scalar as it may be written into a list.
func shown(n ast.Node) string {
	if kindOf(n) == Text {
		return quote(scalarText(n))
	}
	return scalarText(n)
}
