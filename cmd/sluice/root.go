package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"sluice/internal/config"
	"sluice/internal/strictyaml"
)

// app is what all subcommands share: the streams and the flags of the root.
type app struct {
	streams
	configFile string
	verbose    bool
}

const rootLong = `Sluice is a content-filtering mail gateway. It plugs into Postfix or Sendmail as
a milter, hands every message to its scanners, and does to it what the policy of
each recipient says.

What to do next:
  sluice check                 look whether the configuration is right and clamd answers
  sluice scan message.eml      judge a message without an MTA
  sluice serve                 run the daemon; systemd does this for you
  sluice policy explain ADDR   see which policy holds for somebody, and why
The configuration is --config F, else $SLUICE_CONFIG, else /etc/sluice/sluice.yaml,
else built-in values that serve; docs/config.md lists every key.`

// later are the commands of later versions, with what to do meanwhile.
var later = map[string]string{
	"doctor":     "sluice check looks at the configuration, the sockets and the servers",
	"learn":      "this version has no bayes scanner that could learn",
	"rules":      "sluice check names every line of the rules that isn't run",
	"quarantine": "this version has no store: mail is refused, tagged or deferred, never kept",
	"journal":    "this version has no store: each message's log line, found by its queue ID, tells what became of it",
	"db":         "this version has no database",
	"dkim":       "this version doesn't sign",
}

func newRoot(s streams) *cobra.Command {
	a := &app{streams: s}
	root := &cobra.Command{
		Use:           "sluice",
		Short:         "A content-filtering mail gateway",
		Long:          rootLong,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          func(_ *cobra.Command, args []string) error { return a.unknown(args) },
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetIn(s.in)
	root.SetOut(s.out)
	root.SetErr(s.err)
	root.PersistentFlags().StringVar(&a.configFile, "config", "", "the configuration `file`")
	root.PersistentFlags().BoolVarP(&a.verbose, "verbose", "v", false, "say which configuration is used")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return fail(exitUsage, "%w\n%s --help says what there is", err, cmd.CommandPath())
	})
	root.AddCommand(a.newServe(), a.newScan(), a.newCheck(), a.newConfig(), a.newStatus(), a.newPolicy(), a.newVersion(), a.newMan(root), a.newDocs())
	for _, c := range allCommands(root) {
		if args := c.Args; args != nil {
			c.Args = func(cmd *cobra.Command, got []string) error { return usage(cmd, args(cmd, got)) }
		}
	}
	return root
}

// allCommands lists a command and all below it.
func allCommands(c *cobra.Command) []*cobra.Command {
	all := []*cobra.Command{c}
	for _, sub := range c.Commands() {
		all = append(all, allCommands(sub)...)
	}
	return all
}

// usage gives an error of the arguments its exit code and a hint.
func usage(cmd *cobra.Command, err error) error {
	if e := (*exitError)(nil); err == nil || errors.As(err, &e) {
		return err
	}
	return fail(exitUsage, "%w\n%s --help says what there is", err, cmd.CommandPath())
}

// exclusive is an error if both flags are given.
func exclusive(cmd *cobra.Command, a, b string) error {
	if cmd.Flags().Changed(a) && cmd.Flags().Changed(b) {
		return fail(exitUsage, "--%s and --%s exclude each other", a, b)
	}
	return nil
}

// unknown is the error for words that are no subcommand of the root.
func (a *app) unknown(args []string) error {
	if len(args) == 0 {
		return nil
	}
	if instead, ok := later[args[0]]; ok {
		return fail(exitUsage, "%s is not in this build; %s", args[0], instead)
	}
	known := []string{"serve", "scan", "check", "config", "status", "policy", "version", "completion"}
	if near := strictyaml.Suggest(args[0], known); near != "" {
		return fail(exitUsage, "unknown command %q; did you mean %s?", args[0], near)
	}
	return fail(exitUsage, "unknown command %q; there are: %s", args[0], strings.Join(known, ", "))
}

// print writes to standard output.
func (a *app) print(text string) error {
	if _, err := io.WriteString(a.out, text); err != nil {
		return &exitError{exitIO, err}
	}
	return nil
}

// load reads the configuration. All its mistakes are in the problems.
func (a *app) load() (*config.Loaded, strictyaml.Problems) {
	source := config.Find(a.configFile, os.Getenv)
	if a.verbose {
		fmt.Fprintln(a.err, "sluice: configuration: "+source.String())
	}
	cfg, problems := config.Load(source, thisBuild)
	problems = append(problems, cfg.Override(os.Getenv)...)
	problems.Sort()
	return cfg, problems
}

// loadGood reads a configuration that has to be without mistakes.
func (a *app) loadGood() (*config.Loaded, error) {
	cfg, problems := a.load()
	if len(problems) > 0 {
		return nil, problemsError(problems)
	}
	return cfg, nil
}

// problemsError makes an error of mistakes: 78.
func problemsError(ps strictyaml.Problems) error {
	return fail(exitConfig, "the configuration is wrong (sluice check tells more):\n%w", ps)
}
