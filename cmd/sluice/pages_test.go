package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"

	"sluice/internal/testkit"
	"sluice/policy/file"
)

const docsDir = "../../docs"

func readPage(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(docsDir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestPagesAreWhatTheCodeSays: docs/metrics.md and docs/policy.md are up to date.
func TestPagesAreWhatTheCodeSays(t *testing.T) {
	for _, p := range pages {
		page := readPage(t, p.file)
		made, err := p.make()
		if err != nil {
			t.Fatal(err)
		}
		want, err := renew([]byte(page), made)
		if err != nil {
			t.Fatalf("%s: %v", p.file, err)
		}
		if d := cmp.Diff(string(want), page); d != "" {
			t.Errorf("docs/%s isn't what the code says; make docs renews it:\n%s", p.file, d)
		}
	}
}

func TestRenew(t *testing.T) {
	page := "head\n" + madeBegin + "old\n" + madeEnd + "tail\n"
	got, err := renew([]byte(page), "new\n")
	if want := "head\n" + madeBegin + "new\n" + madeEnd + "tail\n"; err != nil || string(got) != want {
		t.Errorf("%q, %v", got, err)
	}
	for _, bad := range []string{"", madeEnd + madeBegin, "head\n" + madeBegin + "old\n"} {
		if _, err := renew([]byte(bad), "new\n"); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}

// TestPolicyExamplesLoad: what docs/policy.md shows can be written so.
func TestPolicyExamplesLoad(t *testing.T) {
	examples := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(readPage(t, "policy.md"), -1)
	if len(examples) < 5 {
		t.Fatalf("only %d examples were found", len(examples))
	}
	for _, e := range examples {
		s, problems := file.Parse("docs/policy.md", []byte(e[1]), file.Options{Delimiters: "+", Built: built()})
		if len(problems) > 0 {
			t.Errorf("%v\n%s", problems, e[1])
		} else if s.Len() == 0 {
			t.Errorf("no policy was read:\n%s", e[1])
		}
	}
}

// TestMetricsOfTheDesign holds what is registered against the page of the design that
// fixes names and labels (DESIGN §8).
func TestMetricsOfTheDesign(t *testing.T) {
	all, err := registered()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]metric{}
	for _, m := range all {
		got[m.name] = m
	}
	const counter, gauge, histogram = dto.MetricType_COUNTER, dto.MetricType_GAUGE, dto.MetricType_HISTOGRAM
	for _, want := range []struct {
		name   string
		kind   dto.MetricType
		labels string
	}{
		{"sluice_messages_total", counter, "action class direction"},
		{"sluice_scanner_errors_total", counter, "reason scanner"},
		{"sluice_bypass_total", counter, "reason"},
		{"sluice_compromise_total", counter, ""},
		{"sluice_split_reject_total", counter, ""},
		{"sluice_panics_total", counter, "component"},
		{"sluice_message_duration_seconds", histogram, ""},
		{"sluice_message_size_bytes", histogram, ""},
		{"sluice_scanner_duration_seconds", histogram, "scanner"},
		{"sluice_queue_wait_seconds", histogram, "scanner"},
		{"sluice_policy_lookup_duration_seconds", histogram, "source"},
		{"sluice_milter_connections", gauge, ""},
		{"sluice_messages_in_flight", gauge, ""},
		{"sluice_spool_bytes", gauge, ""},
		{"sluice_scanner_up", gauge, "endpoint scanner"},
		{"sluice_policy_generation", gauge, ""},
		{"sluice_policy_stale_seconds", gauge, ""},
		{"sluice_unshipped_sole_copies", gauge, ""},
		{"sluice_config_last_reload_successful", gauge, ""},
		{"sluice_build_info", gauge, "goversion revision version"},
	} {
		m, ok := got[want.name]
		if !ok {
			t.Errorf("%s isn't registered", want.name)
			continue
		}
		if labels := strings.Join(m.labels, " "); m.kind != want.kind || labels != want.labels {
			t.Errorf("%s: %v{%s}, want %v{%s}", want.name, m.kind, labels, want.kind, want.labels)
		}
	}
}

// TestScrapedMetrics looks at what a daemon shows that has judged mail: base units
// and names as Prometheus wants them, histograms of both kinds, and in no label
// anything that the mail brought.
func TestScrapedMetrics(t *testing.T) {
	clamd := testkit.StartFakeClamd(t, testkit.FakeClamdOptions{})
	d := startDaemon(t, withClamd(clamd))
	d.answers(t, testkit.Compose("Minutes", testkit.Text("The minutes of our meeting.")), "250")
	clamd.SetScans(testkit.FakeAnswer("Eicar-Test-Signature FOUND"))
	d.answers(t, testkit.Compose("Minutes", testkit.Text("The minutes of our meeting.")), "550")
	clamd.SetScans(testkit.FakeGarbage)
	d.answers(t, testkit.Compose("Minutes", testkit.Text("The minutes of our meeting.")), "451")

	page, err := registered()
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]metric{}
	for _, m := range page {
		known[m.name] = m
	}
	families, err := d.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	series := 0
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), "sluice_") {
			continue
		}
		names = append(names, f.GetName())
		m, ok := known[f.GetName()]
		if !ok || m.kind != f.GetType() || m.help != f.GetHelp() {
			t.Errorf("docs/metrics.md says %v of %s, which is %v", m.kind, f.GetName(), f.GetType())
		}
		for _, s := range f.GetMetric() {
			series++
			var labels []string
			for _, l := range s.GetLabel() {
				labels = append(labels, l.GetName())
				switch free := freeLabels[l.GetName()] != ""; {
				case l.GetName() == "endpoint" && l.GetValue() != clamd.Endpoint():
					t.Errorf("%s: endpoint %q isn't as configured", f.GetName(), l.GetValue())
				case !free && !slices.Contains(m.values[l.GetName()], l.GetValue()):
					t.Errorf("%s: %s has the value %q, which docs/metrics.md doesn't name", f.GetName(), l.GetName(), l.GetValue())
				}
				for _, never := range []string{"@", "example.", "192.0.2.", "4Q1", "alice", "bob", "Eicar"} {
					if strings.Contains(l.GetValue(), never) {
						t.Errorf("%s{%s=%q} bears what the mail brought", f.GetName(), l.GetName(), l.GetValue())
					}
				}
			}
			slices.Sort(labels)
			if d := cmp.Diff(m.labels, labels); d != "" {
				t.Errorf("%s: labels differ from the page's:\n%s", f.GetName(), d)
			}
			if h := s.GetHistogram(); h != nil && (h.Schema == nil || len(h.GetBucket()) < 3) {
				t.Errorf("%s is not a native and classic histogram", f.GetName())
			}
		}
	}
	if len(names) < 20 || series > 500 {
		t.Errorf("%d metrics, %d series", len(names), series)
	}
	problems, err := testutil.GatherAndLint(d.registry, names...)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// TestPagesNameWhatIsThere: every path and every metric that a page names is there.
func TestPagesNameWhatIsThere(t *testing.T) {
	all, err := registered()
	if err != nil {
		t.Fatal(err)
	}
	path := regexp.MustCompile("`((?:bench|cmd|deploy|docs|internal|milter|policy|scanners)/[^` ]*)`")
	link := regexp.MustCompile(`\]\(([^):#]+)\)`)
	name := regexp.MustCompile(`\bsluice_\w+`)
	paths := 0
	entries, err := filepath.Glob(filepath.Join(docsDir, "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		page := readPage(t, filepath.Base(entry))
		there := func(pattern string) {
			t.Helper()
			found, err := filepath.Glob(pattern)
			if err != nil || len(found) == 0 {
				t.Errorf("%s names %s, which isn't there", filepath.Base(entry), pattern)
			}
			paths++
		}
		for _, m := range path.FindAllStringSubmatch(page, -1) {
			there(filepath.Join("../..", m[1]))
		}
		for _, m := range link.FindAllStringSubmatch(page, -1) {
			there(filepath.Join(docsDir, m[1]))
		}
		for _, m := range name.FindAllString(page, -1) {
			if !slices.ContainsFunc(all, func(k metric) bool {
				return m == k.name || k.kind == dto.MetricType_HISTOGRAM && m == k.name+"_bucket"
			}) {
				t.Errorf("%s names the metric %s, which isn't there", filepath.Base(entry), m)
			}
		}
	}
	if paths < 20 {
		t.Errorf("only %d paths were found", paths)
	}
}
