package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"sluice/internal/config"
	"sluice/internal/strictyaml"
	"sluice/policy/file"
	"sluice/scanners"
	"sluice/scanners/rules"
)

func (a *app) newCheck() *cobra.Command {
	return &cobra.Command{
		Use:   "check",
		Short: "Find all mistakes at once, and ask whether every server answers",
		Long: `Read the configuration, the policy file and the rules as the daemon would, and
print every mistake with its file, line and column and what to do about it; then
look at the sockets' folders and ask each server whether it answers. Nothing is
started or changed.

Exit codes: 0 all is well, 78 there are mistakes, 69 a server doesn't answer.

What to do next: sluice serve, or kill -HUP the daemon. With -v rules that this
version can't run are named one by one.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.check(cmd.Context()) },
	}
}

// checkReport is what `sluice check` has found.
type checkReport struct {
	problems strictyaml.Problems
	fine     []string // what is well
	notes    []string // what is worth knowing
	away     int      // servers that don't answer
}

func (a *app) check(ctx context.Context) error {
	cfg, problems := a.load()
	r := &checkReport{problems: problems}
	hasProblem := func(key string) bool {
		return slices.ContainsFunc(problems, func(p strictyaml.Problem) bool { return strings.HasPrefix(p.Key, key) })
	}
	unreadable := len(problems) == 1 && problems[0].Line == 0 && problems[0].Key == ""
	if !unreadable {
		if len(problems) == 0 {
			r.fine = append(r.fine, cfg.Source.String())
		}
		r.checkSystem(cfg)
		r.problems.Sort()
		if !hasProblem("policy.file") && cfg.Policy.Source != "postgres" {
			r.checkPolicies(cfg)
		}
		if cfg.Scanners.Rules.On {
			if c := &cfg.Scanners.Rules; hasProblem("scanners.rules.paths") { // what is there may have mistakes too
				c.Paths = slices.DeleteFunc(c.Paths, func(p string) bool { _, err := os.Stat(p); return err != nil })
			}
			r.checkRules(cfg, a.verbose)
		}
		if !hasProblem("scanners.clamav") && cfg.Scanners.ClamAV.On {
			r.checkClamAV(ctx, cfg)
		}
	}
	return a.tell(r)
}

// tell prints the report and makes the exit code.
func (a *app) tell(r *checkReport) error {
	for _, p := range r.problems {
		fmt.Fprintln(a.out, p.String())
	}
	for _, n := range r.notes {
		fmt.Fprintln(a.out, "note: "+n)
	}
	for _, f := range r.fine {
		fmt.Fprintln(a.out, "ok: "+f)
	}
	switch {
	case len(r.problems) == 1:
		return fail(exitConfig, "1 mistake")
	case len(r.problems) > 1:
		return fail(exitConfig, "%d mistakes", len(r.problems))
	case r.away > 0:
		return fail(exitUnavailable, "%d server(s) don't answer", r.away)
	}
	return nil
}

func (r *checkReport) checkPolicies(cfg *config.Loaded) {
	o := policyOptions(cfg, wiring{})
	var notices strictyaml.Problems
	o.Notice = func(p strictyaml.Problem) { notices = append(notices, p) }
	snapshot, problems := file.Load(cfg.Policy.File, o)
	notices.Sort()
	for _, p := range notices {
		r.notes = append(r.notes, p.String())
	}
	r.problems = append(r.problems, problems...)
	switch {
	case len(problems) > 0:
	case snapshot.Len() == 0:
		r.fine = append(r.fine, cfg.Policy.File+": no policies, so the built-in one holds for everyone")
	default:
		r.fine = append(r.fine, fmt.Sprintf("%s: %d policies", cfg.Policy.File, snapshot.Len()))
	}
}

// checkRules takes lines that nobody could run for mistakes, unless they are in
// files that came with SpamAssassin; what this build can't run is counted.
func (r *checkReport) checkRules(cfg *config.Loaded, all bool) {
	set, problems, err := loadRules(cfg)
	if err != nil {
		r.problems = append(r.problems, cfg.Problem(err.Error(), "", "scanners", "rules", "paths"))
		return
	}
	foreign := config.Default().Scanners.Rules.Paths[0] + "/"
	told := map[string]int{}
	for _, p := range problems {
		switch {
		case p.Severity == rules.Mistake && !strings.HasPrefix(p.File, foreign):
			r.problems = append(r.problems, strictyaml.Problem{File: p.File, Line: p.Line, Key: p.Rule, Message: p.What, Remedy: p.Remedy})
			told[p.Why] += p.Count
		case all:
			r.notes = append(r.notes, p.String())
		}
	}
	c := set.Coverage()
	r.fine = append(r.fine, fmt.Sprintf("rules: %d run, %d of them with a score", c.Rules, c.Visible))
	for _, why := range slices.Sorted(maps.Keys(c.Skipped)) {
		if n := c.Skipped[why] - told[why]; n > 0 {
			r.notes = append(r.notes, fmt.Sprintf("rules: %d are out (%s); sluice check -v names them", n, why))
		}
	}
}

// checkSystem looks at what the daemon needs of the machine.
func (r *checkReport) checkSystem(cfg *config.Loaded) {
	wrong := func(message, remedy string, path ...any) {
		r.problems = append(r.problems, cfg.Problem(message, remedy, path...))
	}
	if short := descriptorsShort(&cfg.Config); short != "" {
		r.notes = append(r.notes, short)
	}
	root := os.Geteuid() == 0
	if root && cfg.User != "" {
		if _, err := lookupAccount(cfg.User); err != nil {
			message, remedy, _ := strings.Cut(err.Error(), ": ")
			wrong(message, remedy, "user")
		}
	}
	for i, e := range cfg.Milter.Listen {
		r.checkSocket(cfg, e, "milter", "listen", i)
	}
	r.checkSocket(cfg, cfg.HTTP.Admin, "http", "admin")
	for _, d := range []struct {
		dir  string
		path []any
	}{{cfg.Store.Path, []any{"store", "path"}}, {filepath.Dir(cfg.SpoolDir()), []any{"spool", "path"}}} {
		st, err := os.Stat(d.dir)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			if _, err := os.Stat(filepath.Dir(d.dir)); err != nil {
				wrong(d.dir+" isn't there, nor is the folder above it", "make it, owned by the daemon's user", d.path...)
			}
		case err != nil:
			wrong(d.dir+": "+trimPath(err), "", d.path...)
		case !st.IsDir():
			wrong(d.dir+" is not a folder", "remove it or name another", d.path...)
		}
	}
}

// checkSocket looks whether a unix socket can be made.
func (r *checkReport) checkSocket(cfg *config.Loaded, e config.Endpoint, path ...any) {
	if e.Network != "unix" {
		return
	}
	dir := filepath.Dir(e.Address)
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		dir = filepath.Dir(dir) // the daemon makes the last folder itself
	}
	st, err := os.Stat(dir)
	switch {
	case err != nil:
		r.problems = append(r.problems, cfg.Problem(dir+": "+trimPath(err), "make the folder, or name another socket", path...))
	case !st.IsDir():
		r.problems = append(r.problems, cfg.Problem(dir+" is not a folder", "name another socket", path...))
	case os.Geteuid() != 0 && unix.Access(dir, unix.W_OK) != nil:
		r.notes = append(r.notes, fmt.Sprintf("%s: this user may not write to it; the daemon must be started by one who may", dir))
	}
	if st, err := os.Lstat(e.Address); err == nil && st.Mode().Type() != fs.ModeSocket {
		r.problems = append(r.problems, cfg.Problem(e.Address+" is there and is not a socket", "remove it or choose another path", path...))
	}
}

// checkClamAV asks every clamd.
func (r *checkReport) checkClamAV(ctx context.Context, cfg *config.Loaded) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	c, err := newClamAV(&cfg.Scanners.ClamAV, wiring{log: slog.New(slog.DiscardHandler)})
	if err != nil {
		r.problems = append(r.problems, cfg.Problem(err.Error(), "", "scanners", "clamav", "endpoints"))
		return
	}
	for _, e := range c.Probe(ctx) {
		r.endpoint(e)
	}
	if err := c.Close(); err != nil {
		r.notes = append(r.notes, "clamav: "+err.Error())
	}
}

func (r *checkReport) endpoint(e scanners.Endpoint) {
	line := e.Scanner + ": " + e.Address + ": " + strings.TrimSpace(e.Version+" "+strings.TrimPrefix(e.Detail, e.Address+": "))
	if age := signatureAge(e.SignaturesDated, time.Now()); age != "" {
		line += ", " + age
	}
	if e.Up {
		r.fine = append(r.fine, line)
		return
	}
	r.away++
	r.notes = append(r.notes, line+": it doesn't answer; is it running, and may this user connect?")
}
