// Command bench measures Sluice side by side with its peers, in one run, on one
// clamd, with a client that speaks milter as Postfix does, and writes the tables
// to bench/RESULTS.md.
//
// Invariants:
//   - Peers take turns within each round, so that a noisy neighbour hits all.
//   - Figures are medians of the rounds; CPU is the processes' own, from /proc.
//   - All files are on one file system, by default in memory: making and deleting
//     clamd's temporary files on ext4 is most of its CPU time and grows with
//     the rate, so that the faster peer would be punished.
//   - A message that isn't answered as expected ends the run: a filter that
//     refuses to work is fast.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"sluice/internal/testkit"
)

func main() {
	o := options{}
	flag.StringVar(&o.sluice, "sluice", "build/sluice", "the program to measure")
	flag.StringVar(&o.results, "results", "bench/RESULTS.md", "where the tables are written; \"\" for nowhere")
	flag.IntVar(&o.rounds, "rounds", 3, "rounds, of which the median counts")
	flag.IntVar(&o.messages, "messages", 600, "5 kB messages a run")
	flag.StringVar(&o.dir, "dir", "/dev/shm", "where the servers keep their files")
	flag.StringVar(&o.only, "only", "", "run only these parts: direct,growth,postfix,idle,memory,slow")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

type options struct {
	sluice, results, dir, only string
	rounds, messages           int
}

func (o options) wants(part string) bool {
	return o.only == "" || strings.Contains(","+o.only+",", ","+part+",")
}

func run(ctx context.Context, o options) (err error) {
	dir, err := os.MkdirTemp(o.dir, "slb")
	if err != nil {
		return err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	b := &bench{options: o, dir: dir}
	defer func() {
		err = errors.Join(err, b.stop())
		if err == nil {
			err = os.RemoveAll(dir)
		} else {
			err = fmt.Errorf("%w\nlogs are kept in %s", err, dir)
		}
	}()
	if err := b.start(ctx); err != nil {
		return err
	}
	for _, part := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"direct", b.direct}, {"growth", b.growth}, {"postfix", b.throughPostfix},
		{"slow", b.slow}, {"idle", b.idle}, {"memory", b.memory},
	} {
		if !o.wants(part.name) {
			continue
		}
		if err := part.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
	}
	if o.results == "" || o.only != "" {
		return nil
	}
	return os.WriteFile(o.results, []byte(b.report()), 0o644)
}

// bench is the run: its servers and what it has written so far.
type bench struct {
	options options
	dir     string
	clamd   *testkit.Clamd
	peers   []*peer
	lines   []string // the ratios to say below the first table
	text    strings.Builder
}

func (b *bench) printf(format string, args ...any) {
	s := fmt.Sprintf(format, args...)
	fmt.Print(s)
	b.text.WriteString(s)
}

func (b *bench) report() string {
	return fmt.Sprintf("# Results\n\nThe last run of `make bench`, %s, on %s. Judge by ratios within one table: machines differ, and neighbours make noise. All servers keep their files below %s.\n%s",
		time.Now().UTC().Format("2006-01-02"), machine(), b.options.dir, b.text.String())
}

// subdir makes a directory for one server.
func (b *bench) subdir(name string) (string, error) {
	d := filepath.Join(b.dir, name)
	return d, os.MkdirAll(d, 0o755)
}
