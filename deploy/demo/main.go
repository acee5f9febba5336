// Command demo starts a whole mail system on private instances: Postfix, clamd,
// Sluice and a mailbox at the end, all on loopback and in one temporary
// directory. It sends real mail through them from an outside address, prints
// what became of each message, takes clamd away, and says how to go on.
//
// Invariants:
//   - It exits non-zero if anything is not as expected.
//   - It leaves nothing running and touches no file outside its directory.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	sluice := flag.String("sluice", "build/sluice", "the program to show")
	keep := flag.Bool("keep", false, "leave everything running until interrupted")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, *sluice, *keep)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, sluice string, keep bool) (err error) {
	fmt.Println("Starting a private mail system: Postfix, clamd, Sluice and a mailbox …")
	s, err := start(ctx, sluice)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop(err != nil)) }()
	s.describe()

	show := &table{}
	if err := s.sendAll(ctx, show); err != nil {
		return err
	}
	if err := s.withoutClamd(ctx, show); err != nil {
		return err
	}
	if err := s.printMetrics(ctx); err != nil {
		return err
	}
	if show.failed > 0 {
		return fmt.Errorf("%d of %d messages fared otherwise than expected", show.failed, show.rows)
	}
	fmt.Printf("\nAll %d messages fared as expected.\n", show.rows)
	if !keep {
		fmt.Println("\nHow to go on: `make demo KEEP=1` leaves it running; README.md says how to attach Sluice to your own Postfix.")
		return nil
	}
	s.explainKeep()
	<-ctx.Done()
	return nil
}

// patience bounds each wait for something that should happen soon.
const patience = 30 * time.Second
