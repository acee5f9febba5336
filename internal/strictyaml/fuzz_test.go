package strictyaml

import (
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// FuzzDecode: no input panics or hangs; problems are bounded, sorted and point
// into the file; the same bytes are read the same way; a document without problems
// holds only known keys at its top.
func FuzzDecode(f *testing.F) {
	for _, s := range []string{
		"name: x\non: true\nlist: [a, b]\nitems:\n  - match: x\n    for: 4h\n", "a: &x [*x, *x]\n", "? a\n: b\n", "- - - -\n", "{a: {b: [c, d]}}",
		"name: |\n  a\n  b\n", "%YAML 1.2\n---\n", "<<: {a: 1}\n", "name: \"\\u0041\"\n", "!!map {name: x}", "name: >-\n\n  x\n", "\ufeffname: x\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 1<<16 {
			return
		}
		var a, b sample
		doc, problems := Decode("f", data, &a)
		_, again := Decode("f", data, &b)
		if !cmp.Equal(problems, again) || !cmp.Equal(a, b, cmp.AllowUnexported(sample{}), cmp.AllowUnexported(common{})) {
			t.Fatal("read in two ways")
		}
		if len(problems) > MaxProblems {
			t.Fatalf("%d problems", len(problems))
		}
		lines := strings.Count(string(data), "\n") + strings.Count(string(data), "\r") + 1
		for i, p := range problems {
			if p.Line < 0 || p.Line > lines+1 || p.Message == "" || i > 0 && problems[i-1].Line > p.Line {
				t.Fatalf("problem out of place: %v in %d lines", p, lines)
			}
		}
		for _, mv := range mapping(doc.root) {
			key, ok := keyText(mv.Key)
			_, known := (&decoder{fields: map[reflect.Type]*structFields{}}).fieldsOf(reflect.TypeFor[sample]()).index[key]
			if len(problems) == 0 && (!ok || !known) {
				t.Fatalf("key %q was ignored", key)
			}
		}
	})
}

// FuzzValues: what is printed is read again as the same value.
func FuzzValues(f *testing.F) {
	for _, s := range []string{"0", "1.5KiB", "100MiB", "30d", "1d12h", "240s", "-1", "9223372036854775807"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if v, err := ParseSize(s); err == nil {
			if w, err := ParseSize(v.String()); v < 0 || w != v || err != nil {
				t.Fatalf("size %q: %d, again %d, %v", s, v, w, err)
			}
		}
		if v, err := ParseDuration(s); err == nil {
			if w, err := ParseDuration(FormatDuration(v)); v < 0 || w != v || err != nil {
				t.Fatalf("duration %q: %v, again %v, %v", s, v, w, err)
			}
		}
	})
}
