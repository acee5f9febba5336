package main

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"
)

// Exit codes, from sysexits(3).
const (
	exitOK          = 0
	exitSpam        = 1  // scan --exit-code only: something is not clean
	exitUsage       = 64 // the command line is wrong
	exitData        = 65 // what was given is not a message
	exitNoInput     = 66 // a file is not there
	exitUnavailable = 69 // a server is away
	exitInternal    = 70 // a fault of the program
	exitIO          = 74 // reading or writing failed
	exitTryAgain    = 75 // try again later
	exitNoPerm      = 77 // no permission
	exitConfig      = 78 // the configuration is wrong
)

// exitError is an error with the exit code it ends the program with. Its text may be
// empty if all has been told.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// fail makes an exitError.
func fail(code int, format string, args ...any) error {
	return &exitError{code, fmt.Errorf(format, args...)}
}

// told ends the program with a code when everything has been said.
func told(code int) error { return &exitError{code: code} }

// codeOf chooses an exit code for an error of the system.
func codeOf(err error, otherwise int) int {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return exitNoPerm
	case errors.Is(err, syscall.EADDRINUSE), errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return exitTryAgain
	}
	return otherwise
}
