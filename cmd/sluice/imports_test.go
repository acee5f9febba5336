package main

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// mayImport is the table of the style guide: what each folder may import of ours. "*"
// stands for every folder below.
var mayImport = map[string][]string{
	"internal/envelope":      {},
	"internal/verdict":       {"internal/envelope"},
	"internal/mail":          {"internal/envelope", "internal/verdict"},
	"internal/mail/archive":  {"internal/mail", "internal/envelope", "internal/verdict"},
	"internal/mail/document": {"internal/mail", "internal/envelope", "internal/verdict"},
	"internal/dkim":          {"internal/mail", "internal/envelope"},
	"scanners":               {"internal/mail", "internal/verdict", "internal/envelope"},
	"scanners/*":             {"scanners", "internal/mail", "internal/mail/archive", "internal/mail/document", "internal/verdict", "internal/envelope", "internal/resolver"},
	"scanners/sender":        {"scanners", "internal/mail", "internal/verdict", "internal/envelope", "internal/dkim", "internal/resolver"},
	"policy":                 {"internal/envelope", "internal/verdict"},
	"policy/file":            {"policy", "internal/envelope", "internal/verdict", "internal/strictyaml"},
	"policy/*":               {"policy", "internal/envelope", "internal/verdict", "internal/pg"},
	"internal/store":         {"internal/envelope", "internal/verdict"},
	"internal/store/*":       {"internal/store", "internal/envelope", "internal/verdict", "internal/pg"},
	"internal/delivery":      {"internal/mail", "internal/envelope"},
	"internal/gateway":       {"internal/envelope", "internal/verdict", "internal/mail", "internal/dkim", "scanners", "policy", "internal/store", "internal/delivery"},
	"milter":                 {"internal/mail", "internal/envelope", "internal/verdict", "policy"},
	"internal/web":           {"internal/gateway", "internal/store", "policy", "internal/verdict", "internal/envelope"},
	"internal/config":        {"internal/strictyaml"},
	"internal/config/gen":    {"internal/config"},
	"internal/strictyaml":    {},
	"internal/resolver":      {},
	"internal/pg":            {},
	"internal/testkit":       {},
	"cmd/sluice/*":           {}, // tests of the whole
	"cmd/sluice/e2e":         {}, // tests only
	"scanners/rules/fit":     {"scanners", "scanners/rules", "internal/mail", "internal/verdict", "internal/envelope"},
}

// mayImportAnything are programs, and what is below bench: they wire.
var mayImportAnything = []string{"cmd/sluice", "bench", "deploy/demo"}

// usesTestkit are the programs that start private servers; so are those below bench.
var usesTestkit = []string{"bench", "deploy/demo"}

// wraps says which folders alone may import a module that is wrapped. Tests of other
// folders may, too: only what is linked counts.
var wraps = map[string][]string{
	"github.com/emersion/go-milter":        {"milter", "bench/noop"}, // the latter is the measure
	"github.com/emersion/go-message":       {"internal/mail"},
	"github.com/baruwa-enterprise/clamd":   {"scanners/clamav"},
	"github.com/goccy/go-yaml":             {"internal/strictyaml"},
	"github.com/spf13/cobra":               {"cmd/sluice"},
	"github.com/rogpeppe/go-internal":      {},
	"github.com/google/go-cmp":             {},
	"github.com/jackc/pgx":                 {"internal/pg", "internal/store/postgres", "policy/postgres", "policy/amavis"},
	"modernc.org/sqlite":                   {"internal/store/sqlite"},
	"github.com/miekg/dns":                 {"internal/resolver", "scanners/sender", "scanners/dnsbl"},
	"github.com/coreos/go-systemd":         {"milter", "cmd/sluice"},
	"github.com/sony/gobreaker":            {"scanners/clamav"},
	"golang.org/x/text/encoding":           {"internal/mail"},
	"golang.org/x/net/html":                {"internal/mail"},
	"golang.org/x/net/idna":                {"internal/envelope"},
	"github.com/rogpeppe/go-internal/diff": {},
}

// listed is what `go list -json` says of a package.
type listed struct {
	ImportPath   string
	Imports      []string
	Deps         []string
	IgnoredFiles []string `json:"IgnoredGoFiles"`
	Standard     bool
}

func list(t *testing.T, args ...string) []listed {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-json=ImportPath,Imports,Deps,IgnoredGoFiles,Standard"}, args...)...)
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		stderr := ""
		if e := (*exec.ExitError)(nil); errors.As(err, &e) {
			stderr = string(e.Stderr)
		}
		t.Fatalf("go list: %v\n%s", err, stderr)
	}
	var all []listed
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

const module = "sluice/"

// TestImports holds the non-test code of every package against the tables.
func TestImports(t *testing.T) {
	packages := list(t, "./...")
	if len(packages) < 10 {
		t.Fatalf("go list found only %d packages", len(packages))
	}
	for _, p := range packages {
		folder := strings.TrimPrefix(p.ImportPath, module)
		allowed, known := allowedFor(folder)
		if !known {
			t.Errorf("%s: the folder isn't in the table: add it here and in STYLE's", folder)
			continue
		}
		for _, imp := range p.Imports {
			if ours, ok := strings.CutPrefix(imp, module); ok {
				if !slices.Contains(allowed, ours) && !slices.Contains(allowed, "everything") {
					t.Errorf("%s imports %s, which it may not", folder, ours)
				}
				if ours == "internal/testkit" && !slices.Contains(usesTestkit, folder) && !strings.HasPrefix(folder, "bench/") {
					t.Errorf("%s links the test kit", folder)
				}
			}
			for wrapped, by := range wraps {
				if (imp == wrapped || strings.HasPrefix(imp, wrapped+"/")) && !slices.Contains(by, folder) {
					t.Errorf("%s imports %s; only %v may", folder, imp, by)
				}
			}
		}
		if len(p.IgnoredFiles) > 0 {
			t.Errorf("%s: build tags hide %v", folder, p.IgnoredFiles)
		}
	}
}

func allowedFor(folder string) (allowed []string, known bool) {
	if slices.Contains(mayImportAnything, folder) || strings.HasPrefix(folder, "bench/") {
		return []string{"everything"}, true
	}
	if a, ok := mayImport[folder]; ok {
		return a, true
	}
	if i := strings.LastIndexByte(folder, '/'); i > 0 {
		if a, ok := mayImport[folder[:i]+"/*"]; ok {
			return a, true
		}
	}
	return nil, false
}

// TestTheProgramLinksNoTestCode: what only tests need isn't in the program.
func TestTheProgramLinksNoTestCode(t *testing.T) {
	for _, dep := range list(t, "./cmd/sluice")[0].Deps {
		for _, no := range []string{"sluice/internal/testkit", "testing", "github.com/rogpeppe/go-internal", "github.com/google/go-cmp"} {
			if dep == no || strings.HasPrefix(dep, no+"/") {
				t.Errorf("the program links %s", dep)
			}
		}
	}
}
