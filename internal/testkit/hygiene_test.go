package testkit

import (
	"go/ast"
	"go/build/constraint"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestNoTestIsHidden fails if a test file of the repository is kept out of a run
// by a build constraint or its name, or if a test can skip itself.
func TestNoTestIsHidden(t *testing.T) {
	root, err := RepositoryRoot()
	if err != nil {
		t.Fatal(err)
	}
	files := 0
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (path == filepath.Join(root, "build") || d.Name() == ".git"):
			return filepath.SkipDir
		case !strings.HasSuffix(path, "_test.go"):
			return nil
		}
		files++
		src, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		for _, complaint := range hiding(rel, src) {
			t.Errorf("%s: %s", rel, complaint)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files == 0 {
		t.Error("no test file was found")
	}
}

// hiding returns how the tests of a file can escape a run.
func hiding(name string, src []byte) []string {
	var found []string
	file, err := parser.ParseFile(token.NewFileSet(), name, src, parser.ParseComments)
	if err != nil {
		return []string{err.Error()}
	}
	for _, group := range file.Comments {
		for _, c := range group.List {
			if c.Pos() < file.Package && (constraint.IsGoBuild(c.Text) || constraint.IsPlusBuild(c.Text)) {
				found = append(found, "build constraint "+c.Text)
			}
		}
	}
	// go help buildconstraint: the last words before _test may be a system or a
	// machine; a leading _ or . and a folder testdata hide a file altogether.
	base := strings.TrimSuffix(filepath.Base(name), "_test.go")
	if words := strings.Split(base, "_"); len(words) > 1 && slices.Contains(platforms, words[len(words)-1]) {
		found = append(found, "name that some systems leave out")
	}
	for element := range strings.SplitSeq(filepath.ToSlash(name), "/") {
		if strings.HasPrefix(element, "_") || strings.HasPrefix(element, ".") || element == "testdata" || element == "vendor" {
			found = append(found, "path that go test leaves out")
		}
	}
	ast.Inspect(file, func(n ast.Node) bool {
		call, ok := n.(*ast.SelectorExpr)
		if ok && slices.Contains([]string{"Skip", "Skipf", "SkipNow"}, call.Sel.Name) {
			found = append(found, "call of "+call.Sel.Name)
		}
		return true
	})
	return found
}

// platforms are the systems and machines that Go knows (go tool dist list, and
// those it keeps for others).
var platforms = strings.Fields(`aix android darwin dragonfly freebsd hurd illumos ios js linux nacl netbsd
	openbsd plan9 solaris wasip1 windows zos 386 amd64 amd64p32 arm armbe arm64 arm64be loong64 mips mipsle
	mips64 mips64le mips64p32 mips64p32le ppc ppc64 ppc64le riscv riscv64 s390 s390x sparc sparc64 wasm`)

func TestHidingIsFound(t *testing.T) {
	skip := "package p\nfunc f(t T) { t.%s }\n"
	for _, tc := range []struct {
		name, file, src string
		want            bool
	}{
		{"plain", "a/b_test.go", "package p\n", false},
		{"names that aren't platforms", "a/sendmail_cf_test.go", "package p\n", false},
		{"first word alone", "a/linux_test.go", "package p\n", false},
		{"comment after package", "a/b_test.go", "package p\n\n//go:build x\n", false},
		{"constraint", "a/b_test.go", "//go:build integration\n\npackage p\n", true},
		{"old constraint", "a/b_test.go", "// +build linux\n\npackage p\n", true},
		{"system", "a/b_windows_test.go", "package p\n", true},
		{"machine", "a/b_linux_arm64_test.go", "package p\n", true},
		{"underscore", "a/_b_test.go", "package p\n", true},
		{"folder", "testdata/b_test.go", "package p\n", true},
		{"skip", "a/b_test.go", strings.Replace(skip, "%s", `Skip("why")`, 1), true},
		{"skipf", "a/b_test.go", strings.Replace(skip, "%s", `Skipf("why")`, 1), true},
		{"skip now", "a/b_test.go", strings.Replace(skip, "%s", "SkipNow()", 1), true},
		{"not Go", "a/b_test.go", "pakage p\n", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := hiding(tc.file, []byte(tc.src)); (len(got) > 0) != tc.want {
				t.Errorf("found %q, want some: %v", got, tc.want)
			}
		})
	}
}
