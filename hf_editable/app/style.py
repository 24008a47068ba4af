"""How the page looks, in the colours of Gradio's theme, light and dark."""

CSS = """
.gradio-container { max-width: 64rem !important; margin: 0 auto !important; }
.he-flush, .he-flush .html-container { padding: 0 !important; }
.he-status { margin: 0; padding: 0.5rem 0.75rem; border-radius: 0.4rem; border-left: 4px solid #5c6570;
  background: var(--background-fill-secondary); overflow-wrap: anywhere; }
.he-status.he-good { border-color: #1f883d; }
.he-status.he-error { border-color: #cf222e; }
.he-soft { opacity: 0.75; font-size: 0.9em; margin: 0.3rem 0; }
.he-source { opacity: 0.75; margin: 0.3rem 0; overflow-wrap: anywhere; }
.he-warn { margin: 0.5rem 0; padding: 0.4rem 0.75rem; border-left: 4px solid #bf8700; overflow-wrap: anywhere;
  background: var(--background-fill-secondary); }
.he-warn ul { margin: 0.2rem 0; padding-left: 1.2rem; list-style: disc; }
.he-facts { display: flex; flex-wrap: wrap; gap: 0.6rem 2rem; margin: 0.2rem 0 0.6rem; }
.he-facts dt { opacity: 0.75; font-size: 0.8em; }
.he-facts dd { margin: 0; font-weight: 600; font-variant-numeric: tabular-nums; }
.he-facts dd .he-soft { font-weight: 400; white-space: nowrap; }
.he-yes::before { content: "✓ "; color: #1f883d; }
.he-no::before { content: "✗ "; color: #cf222e; }
.he-pair { display: grid; grid-template-columns: 1fr 1fr; gap: 0.5rem; overflow-wrap: anywhere; }
.he-pair > div { background: var(--background-fill-secondary); border-radius: 0.4rem; padding: 0.4rem 0.7rem; }
.he-label { display: block; opacity: 0.75; font-size: 0.75em; }
.he-pair del { background: #cf222e33; text-decoration: line-through; border-radius: 0.2rem; padding: 0 0.15em; }
.he-pair ins { background: #1f883d33; text-decoration: none; font-weight: 600; border-radius: 0.2rem;
  padding: 0 0.15em; }
.dark .he-pair del { background: #cf222e66; }
.dark .he-pair ins { background: #1f883d66; }
.dark .he-changes { color-scheme: dark; }
.he-change { border-top: 1px solid var(--border-color-primary); padding: 0.6rem 0; }
.he-changes { max-height: 36rem; overflow-y: auto; padding-right: 0.4rem; }
.he-kept { margin: 0; padding-left: 2rem; list-style: decimal; }
.he-kept li { padding: 0.25rem 0; overflow-wrap: anywhere; }
.he-kept li > span { display: block; margin: 0; }
@media (max-width: 40rem) {
  .he-pair { grid-template-columns: 1fr; gap: 0.25rem; }
  .he-changes { max-height: 75vh; }
  .he-facts { column-gap: 1.1rem; }
}
"""
