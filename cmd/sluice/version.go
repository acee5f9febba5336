package main

import "github.com/spf13/cobra"

func (a *app) newVersion() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print version and revision",
		Args:  cobra.NoArgs,
		RunE:  func(*cobra.Command, []string) error { return a.print(versionLine() + "\n") },
	}
}
