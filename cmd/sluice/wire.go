package main

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sluice/internal/config"
	"sluice/internal/gateway"
	"sluice/internal/strictyaml"
	"sluice/policy"
	"sluice/policy/file"
	"sluice/scanners"
	"sluice/scanners/clamav"
	"sluice/scanners/rules"
)

// wiring is what assemble needs beside the configuration.
type wiring struct {
	log      *slog.Logger
	registry prometheus.Registerer // nil: no metrics
	panicked func(string)
	// generation numbers the policies.
	generation int64
	// judgeOnly: nothing is carried out, so that policies may name any action.
	judgeOnly bool
}

// parts are what a configuration is made into, and what a reload replaces.
type parts struct {
	cfg      *config.Loaded
	pool     *scanners.Pool
	policies *policy.Snapshot
	rules    []rules.Problem
}

// assemble makes scanners and policies of a configuration without mistakes. The
// error is of kind exitError. The caller closes the pool.
func assemble(cfg *config.Loaded, w wiring) (*parts, error) {
	p := &parts{cfg: cfg}
	var problems strictyaml.Problems
	if p.policies, problems = file.Load(cfg.Policy.File, policyOptions(cfg, w)); len(problems) > 0 {
		return nil, problemsError(problems)
	}
	var entries []scanners.Entry
	if c := cfg.Scanners.Rules; c.On {
		set, problems, err := loadRules(cfg)
		if err != nil {
			return nil, fail(exitConfig, "scanners.rules: %w", err)
		}
		p.rules = problems
		budget := min(c.Timeout, rules.DefaultBudget)
		workers := c.Workers
		if workers == 0 {
			workers = runtime.GOMAXPROCS(0)
		}
		entries = append(entries, scanners.Entry{Scanner: rules.New(set, budget), Stage: 2, Required: c.Required, Local: true, Workers: workers, Timeout: c.Timeout})
	}
	var clam *clamav.Scanner
	if c := cfg.Scanners.ClamAV; c.On {
		var err error
		if clam, err = newClamAV(&c, w); err != nil {
			return nil, fail(exitConfig, "scanners.clamav: %w", err)
		}
		workers := c.Workers
		if workers == 0 {
			workers = runtime.GOMAXPROCS(0)
		}
		entries = append(entries, scanners.Entry{Scanner: clam, Stage: 1, Required: c.Required, Workers: workers, Timeout: c.Timeout})
	}
	pool, err := scanners.NewPool(scanners.PoolOptions{Entries: entries, Registerer: w.registry, Log: w.log, Panicked: w.panicked})
	if err != nil {
		if clam != nil {
			err = errors.Join(err, clam.Close())
		}
		return nil, fail(exitInternal, "scanners: %w", err)
	}
	p.pool = pool
	return p, nil
}

// policyOptions says how policies are read.
func policyOptions(cfg *config.Loaded, w wiring) file.Options {
	can := built()
	if w.judgeOnly {
		can[policy.NeedsStore], can[policy.NeedsRedirect] = true, true
	}
	return file.Options{Delimiters: cfg.Policy.RecipientDelimiter, Generation: w.generation, Built: can, Optional: !cfg.PolicyFileWritten}
}

// strictPolicyProblems are the mistakes of the policies as the daemon sees them.
func strictPolicyProblems(cfg *config.Loaded) strictyaml.Problems {
	_, problems := file.Load(cfg.Policy.File, policyOptions(cfg, wiring{}))
	return problems
}

// newClamAV makes the scanner clamav.
func newClamAV(c *config.ClamAV, w wiring) (*clamav.Scanner, error) {
	o := clamav.Options{Timeout: c.Timeout, MaxSize: int64(c.MaxSize), Log: w.log, Registerer: w.registry}
	for _, e := range c.Endpoints {
		o.Endpoints = append(o.Endpoints, e.String())
	}
	return clamav.New(o)
}

// loadRules reads the rule files; the built-in paths may be absent.
func loadRules(cfg *config.Loaded) (*rules.Ruleset, []rules.Problem, error) {
	c := cfg.Scanners.Rules
	o := rules.Options{Builtin: c.Builtin, Symbols: []string{clamav.SymbolVirus, clamav.SymbolEncrypted, clamav.SymbolLimits, clamav.SymbolTooLarge}}
	for _, p := range config.Default().Scanners.Rules.Paths {
		o.Optional = append(o.Optional, filepath.Clean(p))
	}
	return rules.Load(c.Paths, o)
}

// settings are what the gateway needs of the parts.
func (p *parts) settings(retired func()) gateway.Settings {
	m := &p.cfg.Milter
	host, err := os.Hostname()
	if err != nil {
		host = "" // the MTA's own name is used then
	}
	return gateway.Settings{
		Pool:         p.pool,
		Policies:     func() *policy.Snapshot { return p.policies },
		PolicySource: gateway.SourceFile,
		PolicyStale:  func() time.Duration { return 0 },
		Identity:     gateway.Identity{AuthservID: m.AuthservID, Aliases: m.AuthservAliases, Host: host},
		Origin: gateway.Origin{
			Daemons: m.OriginatingDaemons, Networks: config.Prefixes(m.OriginatingNetworks),
			Relays: config.Prefixes(m.RelayNetworks), RelayReject: m.RelayReject, ReinjectDaemons: m.ReinjectDaemons,
		},
		Timeout:      m.Timeout,
		MaxInFlight:  m.MaxConnections,
		Capabilities: capabilities(),
		Retired:      retired,
	}
}

// rulesSummary counts the problems of rule files by severity, for one log line.
func rulesSummary(ps []rules.Problem) (mistakes, skipped int) {
	for _, p := range ps {
		switch p.Severity {
		case rules.Mistake:
			mistakes += p.Count
		case rules.Unsupported:
			skipped += p.Count
		}
	}
	return mistakes, skipped
}
