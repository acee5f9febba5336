package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"

	"sluice/internal/config"
)

// account is a user to run as.
type account struct {
	uid, gid int
	groups   []int
}

func lookupAccount(name string) (*account, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return nil, fmt.Errorf(`there is no user %q: make it (adduser --system --group --no-create-home --home /var/lib/sluice %s), or write user: "" to stay root`, name, name)
	}
	a := &account{}
	if a.uid, err = strconv.Atoi(u.Uid); err == nil {
		a.gid, err = strconv.Atoi(u.Gid)
	}
	if err != nil {
		return nil, err
	}
	ids, err := u.GroupIds()
	if err != nil {
		return nil, fmt.Errorf("groups of %s: %w", name, err)
	}
	for _, id := range ids {
		g, err := strconv.Atoi(id)
		if err != nil {
			return nil, err
		}
		a.groups = append(a.groups, g)
	}
	return a, nil
}

// accountFor returns the configured user if this is root and there is one to become, else
// nil.
func accountFor(cfg *config.Loaded, log *slog.Logger) (*account, error) {
	switch {
	case os.Geteuid() != 0:
		return nil, nil
	case cfg.User == "":
		log.Warn("running as root, because user is empty")
		return nil, nil
	}
	a, err := lookupAccount(cfg.User)
	if err != nil {
		return nil, fail(exitConfig, "user: %w", err)
	}
	return a, nil
}

// dropPrivileges becomes the account, unless it is nil, and gives it the directory of the
// store first, if that is not there yet.
func dropPrivileges(cfg *config.Loaded, a *account) error {
	if a == nil {
		return nil
	}
	for _, dir := range []string{cfg.Store.Path, filepath.Dir(cfg.SpoolDir())} {
		if err := makeOwned(dir, a); err != nil {
			return fail(codeOf(err, exitIO), "store.path: %w", err)
		}
	}
	if err := a.become(); err != nil {
		return fail(exitNoPerm, "user %s: %w", cfg.User, err)
	}
	return nil
}

// makeOwned makes a directory that isn't there and gives it to the account.
func makeOwned(dir string, a *account) error {
	switch err := os.Mkdir(dir, 0o750); {
	case errors.Is(err, fs.ErrExist):
		return nil
	case err != nil:
		return err
	}
	return os.Chown(dir, a.uid, a.gid)
}

// become changes user and groups for good, in all threads of the process.
func (a *account) become() error {
	if err := syscall.Setgroups(a.groups); err != nil {
		return fmt.Errorf("setgroups: %w", err)
	}
	if err := syscall.Setgid(a.gid); err != nil {
		return fmt.Errorf("setgid: %w", err)
	}
	if err := syscall.Setuid(a.uid); err != nil {
		return fmt.Errorf("setuid: %w", err)
	}
	if a.uid != 0 && syscall.Setuid(0) == nil {
		return errors.New("could become root again")
	}
	return nil
}
