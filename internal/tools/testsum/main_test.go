package main

import (
	"strings"
	"testing"
)

func TestSummary(t *testing.T) {
	const good = `{"Action":"start","Package":"p"}
{"Action":"run","Package":"p","Test":"A"}
{"Action":"output","Package":"p","Test":"A","Output":"noise\n"}
{"Action":"run","Package":"p","Test":"A/sub"}
{"Action":"pass","Package":"p","Test":"A/sub"}
{"Action":"pass","Package":"p","Test":"A"}
{"Action":"pass","Package":"p","Elapsed":1.5}
{"Action":"start","Package":"q"}
{"Action":"skip","Package":"q"}
`
	for _, tc := range []struct {
		name, in, last string
		ok             bool
		shows          string
	}{
		{"subtests count, no test files don't", good, "tests: 2 passed, 0 failed, 0 skipped", true, "ok   p "},
		{"nothing ran", `{"Action":"start","Package":"q"}` + "\n" + `{"Action":"skip","Package":"q"}` + "\n", "tests: 0 passed, 0 failed, 0 skipped", false, "none q"},
		{"no input", "", "tests: 0 passed, 0 failed, 0 skipped", false, ""},
		{"a failed test", good + `{"Action":"run","Package":"r","Test":"B"}
{"Action":"output","Package":"r","Test":"B","Output":"why\n"}
{"Action":"fail","Package":"r","Test":"B"}
{"Action":"fail","Package":"r"}
`, "tests: 2 passed, 1 failed, 0 skipped", false, "why\n"},
		{"a skipped test", good + `{"Action":"skip","Package":"r","Test":"B"}
{"Action":"pass","Package":"r"}
`, "tests: 2 passed, 0 failed, 1 skipped", false, "skipped: r B"},
		{"doesn't build", good + `{"ImportPath":"r [r.test]","Action":"build-output","Output":"x.go:1: no\n"}
{"ImportPath":"r [r.test]","Action":"build-fail"}
{"Action":"start","Package":"r"}
{"Action":"output","Package":"r","Output":"FAIL\tr [build failed]\n"}
{"Action":"fail","Package":"r","FailedBuild":"r [r.test]"}
`, "tests: 2 passed, 1 failed, 0 skipped", false, "x.go:1: no\n"},
		{"a test without end", good + `{"Action":"run","Package":"r","Test":"B"}
{"Action":"output","Package":"r","Test":"B","Output":"panic: x\n"}
{"Action":"fail","Package":"r"}
`, "tests: 2 passed, 1 failed, 0 skipped", false, "panic: x\n"},
		{"a package without end", good + `{"Action":"start","Package":"r"}
{"Action":"pass","Package":"r","Test":"B"}
`, "tests: 3 passed, 1 failed, 0 skipped", false, "FAIL r"},
		{"what isn't an event", "go: downloading x\n{broken\n" + good, "tests: 2 passed, 0 failed, 0 skipped", true, "go: downloading x\n{broken\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var out strings.Builder
			s := newSummary(&out)
			if err := s.read(strings.NewReader(tc.in)); err != nil {
				t.Fatal(err)
			}
			ok := s.finish()
			lines := strings.Split(strings.TrimSpace(out.String()), "\n")
			if last := lines[len(lines)-1]; last != tc.last || ok != tc.ok || !strings.Contains(out.String(), tc.shows) {
				t.Errorf("ok %v, want %v, last line %q, want %q, and %q in\n%s", ok, tc.ok, last, tc.last, tc.shows, out.String())
			}
		})
	}
}
