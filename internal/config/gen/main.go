// Command gen prints docs/config.md:
//
//	go run ./internal/config/gen >docs/config.md
package main

import (
	"fmt"

	"sluice/internal/config"
)

func main() { fmt.Print(config.Markdown()) }
