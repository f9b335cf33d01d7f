import { defineConfig } from "vite";

// Two files with fixed names, no source maps: the built page is part of the Python package.
export default defineConfig({
  base: "./",
  build: {
    outDir: "../src/semicdvl/review/page",
    emptyOutDir: true,
    sourcemap: false,
    modulePreload: false,
    assetsInlineLimit: 0,
    rolldownOptions: {
      output: {
        entryFileNames: "page.js",
        chunkFileNames: "page-[name].js",
        assetFileNames: "page[extname]",
      },
    },
  },
});
