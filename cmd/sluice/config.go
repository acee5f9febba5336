package main

import (
	"github.com/spf13/cobra"

	"sluice/internal/config"
)

func (a *app) newConfig() *cobra.Command {
	var differing, defaults bool
	c := &cobra.Command{
		Use:   "config",
		Short: "Print what is in force",
		Long: `Print the configuration that is in force, as a file that sluice reads again.
Relative paths are shown as they are understood, passwords are left out.

What to do next: with -v it says which file was used; docs/config.md explains the keys.`,
		Example: "  sluice config -v\n  sluice config -n\n  sluice config -d >sluice.yaml",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if defaults {
				return a.print(config.DefaultYAML())
			}
			cfg, err := a.loadGood()
			if err != nil {
				return err
			}
			text := cfg.YAML()
			if differing {
				if text = cfg.Differences(); text == "" {
					text = "# nothing differs from the built-in values\n"
				}
			}
			return a.print(text)
		},
	}
	c.Flags().BoolVarP(&differing, "non-default", "n", false, "only what differs from the built-in values")
	c.Flags().BoolVarP(&defaults, "defaults", "d", false, "the built-in values")
	c.PreRunE = func(cmd *cobra.Command, _ []string) error { return exclusive(cmd, "non-default", "defaults") }
	return c
}
