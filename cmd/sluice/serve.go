package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"

	"sluice/internal/config"
)

func (a *app) newServe() *cobra.Command {
	return &cobra.Command{
		Use:   "serve",
		Short: "Run the daemon",
		Long: `Run the daemon in the foreground; it logs to standard error. Started as root it
binds its sockets and then drops to the configured user.

Signals: TERM and INT stop taking mail, answer what is in flight within
milter.drain_timeout and exit 0; a second one ends at once. HUP reads the
configuration, policies and rules anew; if they have a mistake the old ones stay
in force. Sockets, user and the store's folders stay as they are until a restart;
the log says so if they were changed.

SLUICE_LOG_LEVEL in the environment has precedence over log.level. To the systemd
journal each line bears its priority.

What to do next: sluice check beforehand, sluice status while it runs; README.md
says how to attach it to Postfix.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.serve(cmd.Context()) },
	}
}

// serve runs the daemon until a signal ends it.
func (a *app) serve(ctx context.Context) error {
	// A reader of our log that goes away mustn't take the daemon with it; log rotation
	// that sends USR1 neither.
	signal.Ignore(syscall.SIGPIPE, syscall.SIGUSR1)
	hup := make(chan os.Signal, 1) // one is enough: a storm of them is one reload
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process

	cfg, err := a.loadGood()
	if err != nil {
		return err
	}
	logs := newLogging(a.err, cfg.Log, isJournal(a.err, os.Getenv("JOURNAL_STREAM")))
	log := logs.logger()
	account, err := accountFor(cfg, log)
	if err != nil {
		return err
	}
	ls, err := openListeners(cfg, account, log)
	if err != nil {
		return err
	}
	defer ls.close()
	if err := dropPrivileges(cfg, account); err != nil {
		return err
	}
	limitMemory(&cfg.Config)
	d, err := newDaemon(cfg, daemonOptions{log: log, logging: logs, reload: a.load, milterSockets: ls.milter})
	if err != nil {
		return err
	}
	return d.run(ctx, hup, ls)
}

// limitMemory makes the collector work harder before memory runs out. Large messages don't
// lie in Go's heap, so memory_limit and some room bound it amply. $GOMEMLIMIT
// has precedence. Up to there the collector may be lazy: what lives long is small, and at
// Go's own pace it takes a tenth of the CPU time of small mail. $GOGC has precedence.
func limitMemory(cfg *config.Config) {
	const (
		room    = 64 << 20
		percent = 400
	)
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(percent)
	}
	if os.Getenv("GOMEMLIMIT") == "" && int64(cfg.Milter.MemoryLimit) < math.MaxInt64-room {
		debug.SetMemoryLimit(int64(cfg.Milter.MemoryLimit) + room)
	}
}

// descriptorsShort says that the process may open too few files for max_connections: the
// MTA's connection, the message, a copy of it for clamd and the connection to clamd, each
// message. (Go raises the soft limit to the hard one by itself.)
func descriptorsShort(cfg *config.Config) string {
	need := 4*uint64(cfg.Milter.MaxConnections) + 200
	var have syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &have); err != nil || have.Cur >= need {
		return ""
	}
	return fmt.Sprintf("milter.max_connections %d may need %d file descriptors, and %d are allowed: raise LimitNOFILE= (ulimit -n), or lower it", cfg.Milter.MaxConnections, need, have.Cur)
}

// joinErrors joins errors and keeps the exit code of the first one that has one.
func joinErrors(errs ...error) error {
	err := errors.Join(errs...)
	if err == nil {
		return nil
	}
	if e := (*exitError)(nil); errors.As(err, &e) {
		return &exitError{e.code, err}
	}
	return err
}
