// Command sluice is a content-filtering mail gateway: a milter daemon, and the
// tools to check, try and watch it. One file holds one subcommand; mail is
// judged in the packages that this one wires together.
//
// Invariants:
//   - Exit codes follow sysexits(3), see exit.go.
//   - A configuration with a mistake never comes into force.
//   - A stop by SIGTERM answers what is in flight and exits 0.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
)

func main() {
	os.Exit(run(context.Background(), os.Args[1:], streams{os.Stdin, os.Stdout, os.Stderr}))
}

// streams are what a command reads from and writes to.
type streams struct {
	in       io.Reader
	out, err io.Writer
}

// run runs the command line and returns the exit code. What went wrong is told on the error
// stream.
func run(ctx context.Context, args []string, s streams) int {
	root := newRoot(s)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	code := exitInternal
	if e := (*exitError)(nil); errors.As(err, &e) {
		code = e.code
	}
	if text := err.Error(); text != "" {
		fmt.Fprintln(s.err, "sluice: "+text)
	}
	return code
}
