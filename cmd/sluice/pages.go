package main

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/spf13/cobra"

	"sluice/internal/config"
	"sluice/policy"
)

// A page is written by hand, but for what stands between these lines.
const (
	madeBegin = "<!-- made by \"make docs\": change the code, not these lines -->\n"
	madeEnd   = "<!-- end of what is made -->\n"
)

// pages are the files that have a made part, with what makes it.
var pages = []struct {
	file string
	make func() (string, error)
}{
	{"metrics.md", metricsTable},
	{"policy.md", policyTable},
}

// newDocs makes the hidden command behind "make docs".
func (a *app) newDocs() *cobra.Command {
	return &cobra.Command{
		Use:    "docs DIR",
		Short:  "Renew the tables of metrics.md and policy.md",
		Long:   "Renew what is made from the code in the pages metrics.md and policy.md in the folder DIR.",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			for _, p := range pages {
				path := filepath.Join(args[0], p.file)
				old, err := os.ReadFile(path)
				if err != nil {
					return &exitError{codeOf(err, exitIO), err}
				}
				made, err := p.make()
				if err != nil {
					return &exitError{codeOf(err, exitInternal), err}
				}
				page, err := renew(old, made)
				if err != nil {
					return fail(exitData, "%s: %w", path, err)
				}
				if err := os.WriteFile(path, page, 0o644); err != nil {
					return &exitError{codeOf(err, exitIO), err}
				}
			}
			return nil
		},
	}
}

// renew puts made in the place of the page's made part.
func renew(page []byte, made string) ([]byte, error) {
	head, rest, ok := bytes.Cut(page, []byte(madeBegin))
	_, tail, ends := bytes.Cut(rest, []byte(madeEnd))
	if !ok || !ends {
		return nil, fmt.Errorf("the page has no lines %q and %q", strings.TrimSpace(madeBegin), strings.TrimSpace(madeEnd))
	}
	return slices.Concat(head, []byte(madeBegin), []byte(made), []byte(madeEnd), tail), nil
}

// policyTable lists every field of policies.
func policyTable() (string, error) {
	values := map[string]policy.Row{}
	for _, r := range policy.Defaults().Rows(built()) {
		values[r.Key] = r
	}
	var b strings.Builder
	b.WriteString("\n| field | what it takes | built-in value | what it does |\n|---|---|---|---|\n")
	for _, f := range policy.Fields() {
		value, does := "unset", f.Doc
		if v := values[f.Key].Value; v != "" && v != "{}" {
			value = "`" + v + "`"
		}
		if no := f.NoEffect(built()); no != "" {
			does += ". *" + strings.ToUpper(no[:1]) + no[1:] + "*"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", f.Key, f.Type, value, does)
	}
	return b.String() + "\n", nil
}

// metric is one of ours as it is registered.
type metric struct {
	name, help string
	kind       dto.MetricType
	labels     []string            // in order of name
	values     map[string][]string // known values of a label
}

// freeLabels have values that depend on the configuration or the program.
var freeLabels = map[string]string{
	"endpoint": "as configured", "version": "the program's", "revision": "its commit", "goversion": "Go's",
}

// metricsTable lists every metric that a daemon registers.
func metricsTable() (string, error) {
	all, err := registered()
	if err != nil {
		return "", err
	}
	var b strings.Builder
	b.WriteString("\n| metric | type | labels and their values | what it tells |\n|---|---|---|---|\n")
	for _, m := range all {
		var labels []string
		for _, l := range m.labels {
			values := strings.Join(m.values[l], ", ")
			if free, ok := freeLabels[l]; ok {
				values = free
			}
			labels = append(labels, "`"+l+"` ("+values+")")
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", m.name, strings.ToLower(m.kind.String()), strings.Join(labels, "; "), m.help)
	}
	return b.String() + "\n", nil
}

// registered makes a daemon from the built-in values, which listens nowhere, and asks
// its registry.
func registered() (_ []metric, err error) {
	dir, err := os.MkdirTemp("", "sluice-docs-")
	if err != nil {
		return nil, err
	}
	defer func() { err = joinErrors(err, os.RemoveAll(dir)) }()
	cfg, problems := config.Load(config.Source{}, thisBuild)
	if len(problems) > 0 {
		return nil, problemsError(problems)
	}
	// Nothing of this machine is to show.
	cfg.Spool.Path, cfg.Policy.File, cfg.Scanners.Rules.Paths = filepath.Join(dir, "spool"), filepath.Join(dir, "none"), nil
	cfg.Scanners.ClamAV.Endpoints = []config.Endpoint{{Network: "unix", Address: filepath.Join(dir, "none")}}
	d, err := newDaemon(cfg, daemonOptions{log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	defer func() { err = joinErrors(err, d.close()) }()
	return ours(d.registry)
}

// description takes a prometheus.Desc apart, which can only be printed.
var description = regexp.MustCompile(`^Desc\{fqName: "(sluice_\w+)", help: (".*"), unit: .*, constLabels: \{.*\}, variableLabels: \{(.*)\}\}$`)

// ours lists the metrics of a registry whose names begin with sluice_, by name.
func ours(reg *prometheus.Registry) ([]metric, error) {
	byName := map[string]*metric{}
	for _, d := range described(reg) {
		m := description.FindStringSubmatch(d.String())
		if m == nil {
			continue
		}
		help, err := strconv.Unquote(m[2])
		if err != nil {
			return nil, fmt.Errorf("description of %s: %w", m[1], err)
		}
		// One without series yet is a gauge: the others begin at zero.
		known := &metric{name: m[1], help: help, kind: dto.MetricType_GAUGE, values: map[string][]string{}}
		if m[3] != "" {
			known.labels = strings.Split(m[3], ",")
		}
		byName[m[1]] = known
	}
	families, err := reg.Gather()
	if err != nil {
		return nil, err
	}
	for _, f := range families {
		m := byName[f.GetName()]
		if m == nil {
			continue
		}
		m.kind = f.GetType()
		m.labels = nil
		for _, series := range f.GetMetric() {
			for _, l := range series.GetLabel() {
				if !slices.Contains(m.labels, l.GetName()) {
					m.labels = append(m.labels, l.GetName())
				}
				if !slices.Contains(m.values[l.GetName()], l.GetValue()) {
					m.values[l.GetName()] = append(m.values[l.GetName()], l.GetValue())
				}
			}
		}
	}
	var all []metric
	for _, m := range byName {
		slices.Sort(m.labels)
		for _, values := range m.values {
			slices.Sort(values)
		}
		all = append(all, *m)
	}
	slices.SortFunc(all, func(a, b metric) int { return strings.Compare(a.name, b.name) })
	return all, nil
}

// described collects what Describe sends.
func described(c prometheus.Collector) []*prometheus.Desc {
	ch := make(chan *prometheus.Desc)
	go func() {
		defer close(ch)
		c.Describe(ch)
	}()
	var all []*prometheus.Desc
	for d := range ch {
		all = append(all, d)
	}
	return all
}
