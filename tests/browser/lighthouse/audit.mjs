// Audits a page with Lighthouse and prints the report. Arguments: the folder node_modules, the URL, desktop or phone.

const [, , modules, url, form] = process.argv;
const { default: lighthouse, desktopConfig } = await import(`${modules}/lighthouse/core/index.js`);
const { launch } = await import(`${modules}/chrome-launcher/dist/index.js`);

// On a busy machine a request to the browser may be open when Lighthouse closes the page; the report is whole all the same.
process.on("unhandledRejection", (error) => console.error(error));

const chromeFlags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"];
const chrome = await launch({ chromePath: process.env.CHROME_PATH, chromeFlags });
try {
  const settings = {
    port: chrome.port,
    output: "json",
    logLevel: "error",
    onlyCategories: ["accessibility", "best-practices"],
    onlyAudits: ["cumulative-layout-shift"],
    maxWaitForLoad: 15_000, // the page asks for news all the time, so the network is never quiet
    disableFullPageScreenshot: true,
  };
  const { report } = await lighthouse(url, settings, form === "desktop" ? desktopConfig : undefined);
  await new Promise((written) => process.stdout.write(report, written));
} finally {
  chrome.kill();
}
process.exit();
