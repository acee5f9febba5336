package main

import (
	"context"
	"log/slog"
	"time"

	sdaemon "github.com/coreos/go-systemd/v22/daemon"
)

// notify tells the service manager a state and reports whether that went well;
// without a manager it does nothing.
func notify(log *slog.Logger, state string) bool {
	if _, err := sdaemon.SdNotify(false, state); err != nil {
		log.Warn("service manager could not be told", "err", err)
		return false
	}
	return true
}

// reloading is the state RELOADING with the time that systemd wants beside it
// (sd_notify(3), Type=notify-reload).
func reloading() string {
	return sdaemon.SdNotifyReloading + "\n" + sdaemon.SdNotifyMonotonicUsec()
}

// feedWatchdog tells the service manager that the process lives, as often as it wants
// to hear it, until ctx ends.
func feedWatchdog(ctx context.Context, log *slog.Logger) {
	every, err := sdaemon.SdWatchdogEnabled(false)
	if err != nil || every <= 0 {
		return
	}
	tick := time.NewTicker(every / 2)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if !notify(log, sdaemon.SdNotifyWatchdog) {
				return // said once; the manager will end us
			}
		}
	}
}
