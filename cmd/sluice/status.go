package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"sluice/internal/strictyaml"
	"sluice/internal/web"
)

func (a *app) newStatus() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "status",
		Short: "Ask the running daemon how it is",
		Long: `Ask the running daemon, over its admin socket, for connections, messages in flight,
scanners, the age of signatures and the policies in force.

Exit codes: 0 it answered, 69 no daemon runs, 77 this user may not ask.

What to do next: sluice check if something is amiss; the metrics at http.listen
tell more.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.status(cmd.Context(), asJSON) },
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return c
}

func (a *app) status(ctx context.Context, asJSON bool) error {
	// The daemon goes on with what it read last, whatever has become of the file since, and
	// just then one wants to know.
	cfg, problems := a.load()
	switch {
	case cfg.HTTP.Admin.Network != "":
	case len(problems) > 0:
		return problemsError(problems)
	default:
		return fail(exitConfig, "http.admin is empty, so that there is no socket to ask")
	}
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	s, err := web.FetchStatus(ctx, cfg.HTTP.Admin.Address)
	if err != nil && len(problems) > 0 {
		return problemsError(problems)
	}
	if err != nil {
		return statusError(cfg.HTTP.Admin.Address, err)
	}
	if len(problems) > 0 {
		fmt.Fprintln(a.err, "sluice: the configuration file is wrong now; sluice check tells what, and the daemon goes on with what it read before")
	}
	if asJSON {
		err = json.NewEncoder(a.out).Encode(s)
	} else {
		err = printStatus(a.out, s)
	}
	if err != nil {
		return &exitError{exitIO, err}
	}
	return nil
}

func statusError(socket string, err error) error {
	if r := (*web.RefusedError)(nil); errors.As(err, &r) {
		if r.Code == http.StatusForbidden {
			return fail(exitNoPerm, "%s: this user may not ask; see http.admin_users", socket)
		}
		return fail(exitUnavailable, "%w", err)
	}
	if errors.Is(err, fs.ErrPermission) {
		return fail(exitNoPerm, "%s: this user may not connect", socket)
	}
	if op := (*net.OpError)(nil); errors.As(err, &op) {
		return fail(exitUnavailable, "no daemon answers on %s: %w", socket, op.Err)
	}
	return fail(exitUnavailable, "%s: %w", socket, err)
}

func printStatus(w io.Writer, s *web.Status) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(key, format string, args ...any) { fmt.Fprintf(t, "%s\t%s\n", key, fmt.Sprintf(format, args...)) }
	size := func(n int64) string { return strictyaml.Size(n).String() }
	row("sluice", "%s, %s for %s (pid %d)", s.Version, s.State, (time.Duration(s.Uptime) * time.Second).String(), s.PID)
	row("configuration", "%s, read %s", s.Config, s.ConfigLoaded.Format(time.DateTime))
	if s.ConfigError != "" {
		row("", "a later one is wrong: %s", s.ConfigError)
	}
	row("connections", "%d of %d", s.Connections, s.MaxConnections)
	row("messages in flight", "%d", s.InFlight)
	row("spool", "memory %s of %s, disk %s of %s", size(s.Spool.Memory), size(s.Spool.MemoryLimit), size(s.Spool.Disk), size(s.Spool.DiskLimit))
	row("policies", "%d, generation %d, from %s", s.Policy.Policies, s.Policy.Generation, s.Policy.Source)
	for _, e := range s.Scanners {
		state := "up"
		if !e.Up {
			state = "DOWN"
		}
		text := strings.TrimSpace(state + " " + e.Version)
		if age := signatureAge(e.SignaturesDated, time.Now()); age != "" {
			text += ", " + age
		}
		if e.Detail != "" {
			text += ", " + e.Detail
		}
		row(e.Scanner+" "+e.Address, "%s", text)
	}
	return t.Flush()
}

// staleSignatures is the age from which on signatures are taken for forgotten: there are new
// ones several times a day.
const staleSignatures = 48 * time.Hour

// signatureAge says how old signatures are, "" if they have no date.
func signatureAge(dated, now time.Time) string {
	if dated.IsZero() {
		return ""
	}
	switch age := now.Sub(dated); {
	case age < time.Hour:
		return "signatures less than an hour old"
	case age < 2*time.Hour:
		return "signatures an hour old"
	case age < staleSignatures:
		return fmt.Sprintf("signatures %d hours old", age/time.Hour)
	default:
		return fmt.Sprintf("signatures %d days old (does freshclam run?)", age/(24*time.Hour))
	}
}
