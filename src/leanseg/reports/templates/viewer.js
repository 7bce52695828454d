// Scans in three planes, with NiiVue, where the browser has WebGL 2; pictures stay in any case.
document.querySelectorAll(".viewer").forEach((viewer) => {
  const probe = document.createElement("canvas").getContext("webgl2");
  if (typeof niivue === "undefined" || !probe) return;
  viewer.hidden = false;
  const content = JSON.parse(viewer.querySelector("script").textContent);
  const sliders = [...viewer.querySelectorAll("input[type=range]")];
  const begin = new IntersectionObserver((seen) => {
    if (!seen.some((one) => one.isIntersecting)) return;
    begin.disconnect();
    show().catch((error) => {
      viewer.dataset.state = "failed";
      viewer.dataset.why = String(error);
      viewer.hidden = true;
    });
  }, { rootMargin: "300px" });
  begin.observe(viewer);

  async function show() {
    const { Niivue, NVImage } = niivue;
    const nv = new Niivue({
      logLevel: "error", loadingText: "", dragAndDropEnabled: false, scrollRequiresFocus: true,
      isRadiologicalConvention: true, sagittalNoseLeft: true, multiplanarShowRender: 0,
      isOrientationTextVisible: true, fontColor: [1, 1, 1, 0.8], backColor: [0, 0, 0, 1],
      crosshairColor: [0.75, 0.75, 0.75, 1], crosshairWidth: 0.25, crosshairWidthUnit: "percent",
      multiplanarPadPixels: 4,
    });
    const canvas = viewer.querySelector("canvas");
    await nv.attachToCanvas(canvas);
    canvas.addEventListener("pointerdown", () => canvas.focus({ preventScroll: true }));
    // Whoever only passes by scrolls the page; NiiVue would hold it.
    canvas.parentElement.addEventListener("wheel", (event) => {
      if (document.activeElement !== canvas) event.stopPropagation();
    }, { capture: true });
    const volume = async (name, base64, options) => {
      const image = await NVImage.loadFromBase64({ name: `${name}.nii.gz`, base64, ...options });
      nv.addVolume(image);
      return image;
    };
    const coloured = (image, which) => {
      const rgb = content.colours.map((pair) =>
        [1, 3, 5].map((at) => parseInt(pair[which].slice(at, at + 2), 16)));
      const of = (channel) => [0, ...rgb.map((colour) => colour[channel])];
      image.setColormapLabel({
        R: of(0), G: of(1), B: of(2), A: [0, ...rgb.map(() => 255)],
        I: [0, ...rgb.map((_, n) => n + 1)], labels: ["", ...rgb.map(() => "")],
      });
    };
    const scan = await volume("scan", content.scan, { colormap: "gray", cal_min: 0, cal_max: 255 });
    const reference = await volume("reference", content.reference, { opacity: 0.35 });
    coloured(reference, 0);
    const masks = [];
    for (const [number, base64] of content.masks.entries()) {
      masks.push(await volume(`mask ${number}`, base64, { opacity: number ? 0 : 1 }));
      coloured(masks[number], 1);
    }
    nv.opts.showLegend = false;
    nv.updateGLVolume();

    const size = scan.dimsRAS.slice(1, 4);
    const place = (voxel) => {
      nv.scene.crosshairPos = voxel.map((index, axis) => (index + 0.5) / size[axis]);
      nv.drawScene();
      told(voxel);
    };
    const told = (voxel) => sliders.forEach((slider) => {
      const axis = Number(slider.dataset.axis);
      slider.value = voxel[axis];
      const mm = nv.frac2mm(nv.scene.crosshairPos)[axis];
      slider.nextElementSibling.value = `${"xyz"[axis]} = ${mm.toFixed(1).replace("-", "−")} mm`;
    });
    sliders.forEach((slider) => {
      slider.max = size[Number(slider.dataset.axis)] - 1;
      slider.addEventListener("input", () => {
        const voxel = [0, 0, 0];
        sliders.forEach((each) => { voxel[Number(each.dataset.axis)] = Number(each.value); });
        place(voxel);
      });
    });
    nv.onLocationChange = () => told(size.map((n, axis) =>
      Math.min(n - 1, Math.floor(nv.scene.crosshairPos[axis] * n))));
    viewer.querySelectorAll("input:not([type=range])").forEach((input) =>
      input.addEventListener("change", () => {
        const shown = [...viewer.querySelectorAll("input:checked")].map((each) => each.value);
        reference.opacity = shown.includes("reference") ? 0.35 : 0;
        masks.forEach((mask, number) => { mask.opacity = shown.includes(String(number)) ? 1 : 0; });
        nv.updateGLVolume();
      }));
    place(content.start);
    viewer.dataset.state = "ready";
  }
});
