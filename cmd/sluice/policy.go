package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"sluice/internal/envelope"
	"sluice/policy"
	"sluice/policy/file"
)

func (a *app) newPolicy() *cobra.Command {
	c := &cobra.Command{
		Use:   "policy",
		Short: "Look at policies",
		Long: `Look at policies.

What to do next: sluice policy explain ADDR shows which policy holds for somebody.`,
		Args: func(_ *cobra.Command, args []string) error {
			switch {
			case len(args) == 0:
				return nil
			case slices.Contains([]string{"import", "export", "diff", "lint", "test", "replay"}, args[0]):
				return fail(exitUsage, "policy %s is not in this build; policies are in the policy file, and sluice check looks for mistakes in it", args[0])
			}
			return fail(exitUsage, "unknown command %q; there is: sluice policy explain ADDR", args[0])
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	c.AddCommand(a.newPolicyExplain())
	return c
}

// explainFlags are the flags of `sluice policy explain`.
type explainFlags struct {
	outbound, json bool
	sender         string
}

func (a *app) newPolicyExplain() *cobra.Command {
	var f explainFlags
	c := &cobra.Command{
		Use:   "explain ADDR",
		Short: "Show every field of the policy for an address, and where it came from",
		Long: `Show every field of the policy that holds for an address, with its value and the
policy that it came from, and what has no effect in this version.

What to do next: sluice scan --rcpt ADDR --explain FILE shows what it does to a message.`,
		Example: "  sluice policy explain kim@example.org\n  sluice policy explain --outbound lee@example.org",
		Args:    cobra.ExactArgs(1),
		RunE:    func(_ *cobra.Command, args []string) error { return a.explain(f, args[0]) },
	}
	c.Flags().BoolVar(&f.outbound, "outbound", false, "as sender of our own mail, not as recipient")
	c.Flags().StringVar(&f.sender, "sender", "", "say also what the lists of senders have for this `address`")
	c.Flags().BoolVar(&f.json, "json", false, "print one JSON object")
	return c
}

// explanation is what `sluice policy explain --json` prints. Members are added,
// never renamed or removed.
type explanation struct {
	Address   string       `json:"address"`
	Direction string       `json:"direction"`
	Applies   []string     `json:"applies"`
	Fields    []policy.Row `json:"fields"`
	Senders   []string     `json:"senders,omitempty"`
}

func (a *app) explain(f explainFlags, arg string) error {
	address, err := envelope.ParseStrict(arg)
	if err != nil {
		return fail(exitUsage, "%w", err)
	}
	sender := envelope.Address{}
	if f.sender != "" {
		if sender, err = envelope.ParseStrict(f.sender); err != nil {
			return fail(exitUsage, "--sender: %w", err)
		}
	}
	cfg, err := a.loadGood()
	if err != nil {
		return err
	}
	snapshot, problems := file.Load(cfg.Policy.File, policyOptions(cfg, wiring{}))
	if len(problems) > 0 {
		return problemsError(problems)
	}
	direction := envelope.Inbound
	if f.outbound {
		direction = envelope.Outbound
	}
	p := snapshot.Lookup(direction, address)
	e := explanation{Address: address.String(), Direction: direction.String(), Applies: p.Chain(), Fields: p.Rows(built())}
	if e.Applies == nil {
		e.Applies = []string{}
	}
	if f.sender != "" {
		e.Senders = p.SenderRows(sender)
	}
	if f.json {
		err = json.NewEncoder(a.out).Encode(e)
	} else {
		err = a.printExplanation(e, f)
	}
	if err != nil {
		return &exitError{exitIO, err}
	}
	return nil
}

func (a *app) printExplanation(e explanation, f explainFlags) error {
	applies := policy.BuiltIn
	if len(e.Applies) > 0 {
		applies = strings.Join(e.Applies, ", ") + ", " + policy.BuiltIn
	}
	if _, err := fmt.Fprintf(a.out, "%s, %s: each field comes from the first of these that sets it: %s\n\n", e.Address, e.Direction, applies); err != nil {
		return err
	}
	t := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	for _, r := range e.Fields {
		value := r.Value
		if value == "" {
			value = "(unset)"
		}
		if r.NoEffect != "" {
			value += "  [" + r.NoEffect + "]"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\n", r.Key, r.Origin, value)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if f.sender == "" {
		return nil
	}
	if len(e.Senders) == 0 {
		e.Senders = []string{"no list has an entry"}
	}
	_, err := fmt.Fprintf(a.out, "\n%s as sender or author: %s\n", f.sender, strings.Join(e.Senders, "; "))
	return err
}
